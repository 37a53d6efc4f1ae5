"""What is worth looking at in a generator: samples, translations there and back, reconstructions and latents.

Everything is drawn from the same noise and the same held-out images at every round of every training, so that
pictures side by side differ by what was learned.
"""

import torch
from torch import Tensor

from ..data import Dataset
from ..generator import Generator
from ..randomness import stream
from .pictures import grid, picture, scatter

PICTURES = ("samples", "translations", "reconstructions")  # where one is wanted, the first that there is
SHOWN, ROWS, CLOUD = 64, 8, 2000
LARGE = 128  # pixels; fewer rows of larger images


def look(generator: Generator, dataset: Dataset) -> dict[str, bytes]:
    """PNGs by name. A kind of data that has no plain way to be looked at gives none."""
    rng = stream(0, "look", device=generator.device)
    pictures = {}
    if generator.game.sample is not None:
        pictures["samples"] = _samples(generator, dataset, rng)
    if generator.game.translate and _shown(dataset.heldout):
        pictures["translations"] = _translations(generator, dataset)
    if generator.game.inference is not None:
        if _shown(dataset.heldout):
            pictures["reconstructions"] = _reconstructions(generator, dataset, rng)
        pictures["latents"] = _latents(generator, dataset, rng)
    return {name: png for name, png in pictures.items() if png is not None}


def class_grid(generator: Generator, rng: torch.Generator, columns: int = ROWS) -> Tensor:
    """(classes * columns, *X): one row a class, and down each column the same z."""
    assert generator.classes is not None
    z = generator.latents(columns, rng)
    labels = torch.arange(generator.classes, device=z.device)
    return generator(z.repeat(generator.classes, 1), labels.repeat_interleave(columns))


def _samples(generator: Generator, dataset: Dataset, rng: torch.Generator) -> bytes | None:
    if generator.classes and _shown(dataset.heldout):
        return grid(class_grid(generator, rng), ROWS)
    samples, labels = generator.draw(SHOWN if dataset.kind == "image" else CLOUD, rng)
    return picture(samples, dataset.heldout, labels)


def _translations(generator: Generator, dataset: Dataset) -> bytes:
    """Rows of x, G(x), F(G(x)), y, F(y), G(F(y))."""
    assert dataset.target is not None
    there, back = generator.game.translate
    rows = ROWS if dataset.sample_shape[-1] <= LARGE else ROWS // 2
    columns = []
    for images, first, second in ((dataset.heldout, there, back), (dataset.target.heldout, back, there)):
        source = images[:rows].to(generator.device)
        translated = generator.translate(source, first)
        columns += [source, translated, generator.translate(translated, second)]
    rows = min(len(column) for column in columns)  # the two held-out halves may differ in length
    return grid(torch.stack([column[:rows] for column in columns], dim=1).flatten(0, 1), len(columns))


def _reconstructions(generator: Generator, dataset: Dataset, rng: torch.Generator) -> bytes:
    """Columns of a held-out image and the mean image of a latent drawn for it, side by side."""
    images = dataset.heldout[: ROWS * ROWS // 2].to(generator.device)
    again = generator(generator.posterior(images, rng))
    return grid(torch.stack([images, again], dim=1).flatten(0, 1), ROWS)


def _latents(generator: Generator, dataset: Dataset, rng: torch.Generator) -> bytes | None:
    """Latents drawn for held-out images, in the colours of their classes, over draws of the prior in grey."""
    if generator.card["z_dim"] < 2:
        return None
    images = dataset.heldout[:CLOUD].to(generator.device)
    labels = dataset.heldout_labels
    z = generator.posterior(images, rng)
    prior = generator.latents(CLOUD, rng)
    return scatter(z[:, :2], prior[:, :2], None if labels is None else labels[:CLOUD])


def _shown(images: Tensor) -> bool:
    return images.dim() == 4 and images.shape[1] in (1, 3)

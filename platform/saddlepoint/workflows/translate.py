"""Images of one domain as their counterparts in the other, by a registered translator or from a folder with one."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.images import decode, find_images, to_pixels
from ..errors import UserError
from ..files import write_bytes
from ..training.pictures import grid, image
from .generate import check_formats, load, write_npz


def translate(model: str, images: Path, out: Path, direction: str = "x_to_y") -> list[Path]:
    """Translates an image, a folder of images, or the `samples` of an NPZ, and writes what `out` says.

    out     a folder: one PNG for each image, under its name; .npz: the translations as `samples`;
            .png: sources and translations side by side

    Raises:
        UserError: a model that does not translate; no images, or of another shape than the model's.
    """
    if out.suffix:
        check_formats([out], (".png", ".npz"))
    translator = load(model)
    if not translator.game.translate:
        raise UserError(f"model: {model!r} draws samples and translates nothing; use saddle generate")
    names, sources = _read(images, translator.sample_shape)
    made = translator.translate(sources, direction).cpu()
    if out.suffix == ".npz":
        write_npz(out, made)
    elif out.suffix == ".png":
        pairs = torch.stack([sources, made], dim=1).flatten(0, 1)[:64]
        write_bytes(out, grid(pairs, min(8, len(pairs))))
    else:
        for name, translation in zip(names, made, strict=True):
            write_bytes(out / f"{name}.png", image(translation))
        return [(out / f"{name}.png").absolute() for name in names]
    return [out.absolute()]


def _read(path: Path, shape: tuple[int, ...]) -> tuple[list[str], Tensor]:
    """Names and images (n, *shape) in [-1, 1]."""
    if path.suffix == ".npz":
        return _from_npz(path, shape)
    files = [path / file for file in find_images(path)] if path.is_dir() else [path]
    if not files or not path.exists():
        raise UserError(f"images: {str(path)!r} is neither an image, nor a folder with some, nor a .npz")
    channels, *size = shape
    levels = [torch.tensor(decode(file, f"images: {str(file)!r}", size[0], channels)) for file in files]
    return [file.stem for file in files], to_pixels(torch.stack(levels))


def _from_npz(path: Path, shape: tuple[int, ...]) -> tuple[list[str], Tensor]:
    try:
        with np.load(path) as arrays:  # refuses pickles
            samples = arrays["samples"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"images: {str(path)!r} holds no array 'samples': {error}") from error
    if samples.shape[1:] != shape or not len(samples):
        raise UserError(f"images: {str(path)!r} holds samples of shape {samples.shape[1:]}; the model takes {shape}")
    return [f"{row:05d}" for row in range(len(samples))], torch.from_numpy(samples).float()

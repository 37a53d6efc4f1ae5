"""Features of a small classifier, trained once on the real labelled images of a data set and on nothing else.

The recipe: convolutions 3x3 of 32, 64, 64 channels with strides 1, 2, 2 (and one more of stride 2 for each
further doubling of the image size, until 2x2 are left), 64 hidden units, one output a class; 30 epochs of
Adam at 1e-3 with weight decay 1e-4 in batches of 64, dropout 0.3 before the last layer. The features are the
64 units after their ReLU. It runs on one CPU thread, and fitted again it has the same bits; a CPU of another
kind may differ in the last ones, which the hash then shows.

Trained on both halves: it is a measure, not a player, and a game sees neither it nor the held-out half. Its
cost grows with the pixels: seconds for digits, minutes for sets of 32x32; larger images want `inception`.

Shapes   N samples (C, H, W), K classes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from saddlepoint.data import Dataset
from saddlepoint.errors import UserError
from saddlepoint.files import shared_cache, write_bytes
from saddlepoint.remote import Place, at_hand

RECIPE = "classifier 1: conv 32-64-64(-64) fc 64, 30 epochs, Adam 1e-3, decay 1e-4, batch 64, dropout 0.3, seed 0"
FEATURES, EPOCHS, BATCH, SEED = 64, 30, 64, 0


Half = Literal["both", "heldout", "train"]


class Network(nn.Module):
    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 3, stride=1, padding=1), nn.ReLU()]
        widths = [32, 64]
        while side > 2 or len(layers) < 6:
            layers += [nn.Conv2d(widths[0], 64, 3, stride=2, padding=1), nn.ReLU()]
            widths, side = [64, 64], (side + 1) // 2
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64 * 2 * 2, FEATURES), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K)."""
        logits: Tensor = self.head(F.dropout(self.features(images), 0.3, self.training))
        return logits


class Classifier:
    """An extractor that also names classes."""

    name = "classifier"
    dimension = FEATURES

    def __init__(self, network: Network) -> None:
        self._network = network.eval()
        self.hash = weights_hash(RECIPE, network.state_dict())

    def __call__(self, samples: Tensor) -> Tensor:
        """Features (N, 64) float64 of images (N, C, H, W)."""
        with torch.no_grad(), one_thread():
            batches = [self._network.features(images.cpu()).double() for images in torch.split(samples, 256)]
        return torch.cat(batches)

    def classify(self, samples: Tensor) -> Tensor:
        """Probabilities (N, K) float64 of the classes of images (N, C, H, W)."""
        return self.probabilities(self(samples))

    def probabilities(self, features: Tensor) -> Tensor:
        """Probabilities (N, K) float64 from features (N, 64)."""
        head = self._network.head
        with torch.no_grad():
            return F.linear(features, head.weight.double(), head.bias.double()).softmax(dim=1)


def classifier(dataset: Dataset, cache: Place | None = None, half: Half = "both") -> Classifier:
    """The classifier of this data set: from the cache if it lies there whole, else trained and put there.

    A file is named by the hash of data, recipe and torch version, and holds the hash of its weights; one that
    does not fit is trained anew. Two processes may train it at once: each writes the same bits, atomically.

    Args:
        cache: its folder; default `$SADDLE_CACHE`, a folder or a URI, else `~/.cache/saddlepoint`.
        half: what it is trained on. A judge of what a game makes should know only what is not compared with it.

    Raises:
        UserError: the data set has no labels or no images; the cache folder cannot be written.
    """
    if dataset.kind != "image" or dataset.train_labels is None or dataset.heldout_labels is None:
        raise UserError(
            f"objective.features: 'classifier' needs labelled images, and {dataset.name!r} has none; "
            "choose inception or pixels"
        )
    part = "" if half == "both" else f"\n{half}"
    key = hashlib.sha256(f"{RECIPE}\n{torch.__version__}\n{dataset.fingerprint}{part}".encode()).hexdigest()
    path = (cache or shared_cache()) / f"classifier-{key[:20]}.safetensors"
    assert dataset.classes is not None  # Dataset.build: labels come with classes
    with _private_randomness():
        network = Network(dataset.sample_shape[0], min(dataset.sample_shape[1:]), dataset.classes)
        state = _read(path)
        if state is None:
            halves = {
                "train": (dataset.train, dataset.train_labels),
                "heldout": (dataset.heldout, dataset.heldout_labels),
            }
            chosen = halves.values() if half == "both" else [halves[half]]
            images, labels = (torch.cat([part.cpu() for part in parts]) for parts in zip(*chosen, strict=True))
            fit(network, images, labels)
            _write(path, network.state_dict())
        else:
            network.load_state_dict(state)
    return Classifier(network)


def fit(network: Network, images: Tensor, labels: Tensor) -> None:
    """Trains the network in place by the recipe; randomness comes from torch's CPU generator."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    network.train()
    with torch.enable_grad(), one_thread():
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(images)), BATCH):
                loss = F.cross_entropy(network(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()


def weights_hash(recipe: str, state: Mapping[str, Tensor]) -> str:
    """sha256 over a recipe and the named weights, their types, shapes and bytes."""
    digest = hashlib.sha256(recipe.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums are then taken in one order, and have the same bits wherever they run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _private_randomness() -> Iterator[None]:
    """Torch's CPU generator at SEED, and afterwards where the caller had it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed would reseed the GPUs too
        yield


def _read(path: Place) -> dict[str, Tensor] | None:
    """The weights in a cache file; None if there is no file or it is not what was written."""
    try:
        with at_hand(path) as here, safe_open(here, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            written = (file.metadata() or {}).get("hash")
    except (OSError, SafetensorError):
        return None
    return state if weights_hash(RECIPE, state) == written else None


def _write(path: Place, state: Mapping[str, Tensor]) -> None:
    content = safetensors.torch.save(dict(state), metadata={"hash": weights_hash(RECIPE, state)})
    try:
        write_bytes(path, content)
    except OSError as error:
        raise UserError(
            f"SADDLE_CACHE: the cache folder {str(path.parent)!r} cannot be written: {error.strerror}"
        ) from error

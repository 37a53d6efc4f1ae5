"""What a game is played over: a training half, a held-out half that the game never sees, and a fingerprint.

Shapes   N training samples, M held-out samples, X the shape of one sample, K modes, D coordinates.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlepoint.errors import UserError

Kind = Literal["image", "points"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of equal weight and one isotropic standard deviation: the law of ring and grid."""

    means: Tensor  # (K, D) float64
    std: float


class Stream(Protocol):
    """A training half that is larger than memory."""

    @property
    def fingerprint(self) -> str:
        """Of the whole content, as honest as can be had without reading all of it; it becomes part of the set's."""

    def __len__(self) -> int:
        """N, the rows."""

    def epoch(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All rows once, in an order that the seed fixes, in pieces: samples (n, *X) float32, labels (n,) int64.

        `start` rows are left out, without reading what lies wholly before them: a resumed run goes on there.
        """


@dataclass(frozen=True, eq=False)
class Dataset:
    """Made by `Dataset.build`, which validates. Compare two by their fingerprints.

    For translation it has a `target`: the second domain, a data set of its own, whose training half is not
    paired with this one's. `paired`: the held-out halves are, row by row, for scores only.
    """

    name: str
    kind: Kind
    train: Tensor  # (N, *X) float32; images (N, C, H, W) in [-1, 1]; points (N, D)
    heldout: Tensor  # (M, *X) float32; every score is against it
    train_labels: Tensor | None  # (N,) int64
    heldout_labels: Tensor | None  # (M,) int64
    classes: int | None
    mixture: Mixture | None
    fingerprint: str  # sha256 of the content: equal data have it equal, whatever their name, on any machine
    stream: Stream | None = None  # what batches come from; `train` is then a sample of it
    target: "Dataset | None" = None
    paired: bool = False

    @classmethod
    def build(
        cls,
        name: str,
        kind: Kind,
        train: Tensor,
        heldout: Tensor,
        *,
        train_labels: Tensor | None = None,
        heldout_labels: Tensor | None = None,
        classes: int | None = None,
        mixture: Mixture | None = None,
        stream: Stream | None = None,
    ) -> Self:
        """The data set of these tensors, with its fingerprint. With a stream, `train` is a sample of what it gives.

        Raises:
            UserError: a half that is empty, not float32, not finite, or of another shape than its kind or
                the other half asks; pixels outside [-1, 1]; labels for one half only, or not int64 in
                0..classes-1.
        """
        for half, samples in (("train", train), ("heldout", heldout)):
            if fault := _fault(kind, samples):
                raise UserError(f"data.name: {name!r}: {half} {fault}")
        if train.shape[1:] != heldout.shape[1:]:
            shapes = f"{tuple(train.shape[1:])} and {tuple(heldout.shape[1:])}"
            raise UserError(f"data.name: {name!r}: samples of train and heldout differ in shape: {shapes}")
        if len({train_labels is None, heldout_labels is None, classes is None}) > 1:
            raise UserError(f"data.name: {name!r}: give labels of both halves and classes, or none of them")
        for half, samples, labels in (("train", train, train_labels), ("heldout", heldout, heldout_labels)):
            if labels is None or classes is None:
                continue
            if labels.dtype != torch.int64 or labels.shape != samples.shape[:1]:
                raise UserError(f"data.name: {name!r}: {half}_labels must be int64, one for each sample")
            if labels.min() < 0 or labels.max() >= classes:
                raise UserError(f"data.name: {name!r}: {half}_labels must lie in 0..{classes - 1}")
        if mixture is not None:
            fits = kind == "points" and mixture.means.ndim == 2 and mixture.means.shape[1:] == train.shape[1:]
            if not (fits and mixture.std > 0):
                raise UserError(f"data.name: {name!r}: a mixture needs points (N, D), means (K, D), a std above 0")
        described = f"{kind} classes={classes} std={mixture.std if mixture else None}"
        if stream is not None:
            described += f" stream={stream.fingerprint}"
        means = mixture.means if mixture else None
        fingerprint = _fingerprint(described, train, heldout, train_labels, heldout_labels, means)
        return cls(name, kind, train, heldout, train_labels, heldout_labels, classes, mixture, fingerprint, stream)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])

    def to(self, device: torch.device | str) -> Self:
        """The same data on `device`, the target too; a stream stays where it is, and so does the fingerprint."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return tensor if tensor is None else tensor.to(device)

        return replace(
            self,
            train=self.train.to(device),
            heldout=self.heldout.to(device),
            train_labels=move(self.train_labels),
            heldout_labels=move(self.heldout_labels),
            target=None if self.target is None else self.target.to(device),
        )


def join(name: str, x: Dataset, y: Dataset, *, paired: bool = False) -> Dataset:
    """Two domains as one data set for translation: `x`, and `y` as its target. The fingerprint is over both.

    Raises:
        UserError: domains of different kind, channels or size; held-out halves that are said to be paired and
            differ in length.
    """

    def differ(what: str, of_x: object, of_y: object) -> UserError:
        return UserError(
            f"data.name: {name!r}: the domains {x.name!r} and {y.name!r} differ in {what}: {of_x} and {of_y}"
        )

    if x.target is not None or y.target is not None:
        raise UserError(f"data.name: {name!r}: each domain must be one data set, not two")
    if x.kind != y.kind:
        raise differ("their kind", x.kind, y.kind)
    if x.kind == "image" and x.sample_shape[0] != y.sample_shape[0]:
        raise differ("the channels of their images", x.sample_shape[0], y.sample_shape[0])
    if x.sample_shape != y.sample_shape:
        raise differ("the shape of a sample", x.sample_shape, y.sample_shape)
    if paired and len(x.heldout) != len(y.heldout):
        raise differ("the length of their held-out halves, which are to be paired", len(x.heldout), len(y.heldout))
    both = hashlib.sha256(f"domains paired={paired}\n{x.fingerprint}\n{y.fingerprint}".encode()).hexdigest()
    return replace(x, name=name, target=y, paired=paired, fingerprint=both)


def halves(n: int, seed: int, labels: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """0..n-1, shuffled by the seed and dealt into a training half (n // 2) and a held-out half (the rest).

    With labels (n,) the deal is stratified: of every class the halves hold the same number, to within one.
    """
    require(seed >= 0, "seed", seed, "0 or more")
    shuffled = np.random.default_rng(seed).permutation(n)
    by_class = shuffled if labels is None else shuffled[np.argsort(labels[shuffled], kind="stable")]
    in_train = np.zeros(n, dtype=bool)
    in_train[by_class[1::2]] = True
    return shuffled[in_train[shuffled]], shuffled[~in_train[shuffled]]


def require(condition: bool, option: str, value: object, right: str) -> None:
    """Raises the UserError for an option of a data set whose value cannot be."""
    if not condition:
        raise UserError(f"data.{option}: {value!r} cannot be; it must be {right}")


def _fault(kind: Kind, samples: Tensor) -> str | None:
    dimensions, layout = (4, "(N, C, H, W)") if kind == "image" else (2, "(N, D)")
    if samples.ndim != dimensions or samples.numel() == 0:
        return f"has the shape {tuple(samples.shape)}; {kind} data needs {layout}, none of them 0"
    if samples.dtype != torch.float32:
        return f"is {samples.dtype}; it must be float32"
    low, high = samples.aminmax()
    if not bool(torch.isfinite(high - low)):
        return "holds values that are not finite"
    if kind == "image" and (low < -1 or high > 1):
        return f"has pixels from {low:g} to {high:g}; they must lie in [-1, 1]"
    return None


def _fingerprint(described: str, *tensors: Tensor | None) -> str:
    digest = hashlib.sha256(described.encode())
    for tensor in tensors:
        digest.update(f"\n{None if tensor is None else (tensor.dtype, *tensor.shape)}\n".encode())
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()

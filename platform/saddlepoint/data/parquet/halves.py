"""What is written as shards: the half of a data set, read once from its start to its end.

Shapes   N rows, X the shape of a sample: (C, H, W) or (D,).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from saddlepoint.data.dataset import Stream
from saddlepoint.data.images import AT_ONCE, ImageFiles, to_levels
from saddlepoint.data.parquet.columns import DType
from saddlepoint.errors import SaddleError

Rows = tuple[Tensor, Tensor | None]  # samples (n, *X), and their labels (n,) int64


class Half(Protocol):
    @property
    def shape(self) -> tuple[int, ...]:
        """X"""

    @property
    def dtype(self) -> DType:
        """uint8: levels 0..255 of pixels; float32: numbers as they are."""

    @property
    def labelled(self) -> bool: ...

    def __len__(self) -> int:
        """N"""

    def read(self, start: int, stop: int) -> Rows:
        """The rows start .. stop - 1, samples as `dtype`."""


@dataclass(frozen=True)
class OfFiles:
    """Image files, decoded when they are read."""

    images: ImageFiles
    dtype: DType = np.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.images.channels, self.images.size, self.images.size)

    @property
    def labelled(self) -> bool:
        return self.images.labels is not None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Rows:
        labels = self.images.labels
        return self.images.read(start, stop), None if labels is None else labels[start:stop]


@dataclass(frozen=True)
class OfTensors:
    """What is in memory; as uint8 only if `are_levels`."""

    samples: Tensor
    labels: Tensor | None
    dtype: DType

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.samples.shape[1:])

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Rows:
        return _stored(self.samples[start:stop], self.dtype), None if self.labels is None else self.labels[start:stop]


class OfStream:
    """A training half that is larger than memory, in the order of the epoch of seed 0."""

    def __init__(self, stream: Stream, shape: tuple[int, ...], labelled: bool, dtype: DType) -> None:
        self.shape, self.labelled, self.dtype, self._rows = shape, labelled, dtype, len(stream)
        self._pieces: Iterator[Rows] = stream.epoch(0)
        self._left: Rows | None = None

    def __len__(self) -> int:
        return self._rows

    def read(self, start: int, stop: int) -> Rows:
        samples, labels, missing = [], [], stop - start
        while missing:
            x, y = self._left or next(self._pieces)
            samples.append(x[:missing])
            labels += [] if y is None else [y[:missing]]
            taken = len(samples[-1])
            self._left = None if taken == len(x) else (x[taken:], None if y is None else y[taken:])
            missing -= taken
        return _stored(torch.cat(samples), self.dtype), torch.cat(labels) if labels else None


def are_levels(samples: Tensor) -> bool:
    """Whether every pixel is exactly k / 127.5 - 1 for a k in 0..255."""
    return all(to_levels(samples[start : start + AT_ONCE]) is not None for start in range(0, len(samples), AT_ONCE))


def _stored(samples: Tensor, dtype: DType) -> Tensor:
    if dtype is np.float32:
        return samples
    levels = to_levels(samples)
    if levels is None:  # only of a stream: of it, no more than a sample was looked at
        raise SaddleError("data.name: some images of the stream are not 8-bit, though those of its sample are")
    return levels

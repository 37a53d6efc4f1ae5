"""Batches: a new order every epoch, the incomplete last batch dropped. A source's state is a position, so that a
resumed run sees the same data go by."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data import Dataset
from ..data.dataset import Stream
from ..errors import UserError
from ..games import Batch
from ..randomness import stream
from .team import ALONE, Team


class Source(Protocol):
    """An endless stream of batches."""

    def __call__(self) -> Batch: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def batches(
    dataset: Dataset, size: int, seed: int, device: torch.device, purpose: str = "batches", team: Team = ALONE
) -> Source:
    """Batches of the training half, of both domains if there are two; of each, this member's rows.

    Raises UserError: a size above the data's.
    """
    own: Source
    rows = team.rows(size)
    if dataset.stream is not None:
        own = StreamedBatches(dataset.stream, size, stream(seed, purpose), device, rows)
    else:
        labels = dataset.train_labels
        y = None if labels is None else labels.to(device)
        own = Batches(dataset.train.to(device), y, size, stream(seed, purpose), rows)
    if dataset.target is None:
        return own
    return Domains(own, batches(dataset.target, size, seed, device, "batches of the target", team))


class Batches:
    """From data that lies on the device whole. x: (N, *X), y: (N,) or None."""

    def __init__(self, x: Tensor, y: Tensor | None, size: int, rng: torch.Generator, rows: slice = slice(None)) -> None:
        _check(size, len(x))
        self.x, self.y, self.size, self.rng = x, y, size, rng
        self.first, self.last, _ = rows.indices(size)
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.epoch = self.rng.get_state()
        self.order = torch.randperm(len(self.x), generator=self.rng).to(self.x.device)
        self.cursor = 0

    def __call__(self) -> Batch:
        if self.cursor + self.size > len(self.x):
            self._start_epoch()
        index = self.order[self.cursor + self.first : self.cursor + self.last]
        self.cursor += self.size
        return Batch(self.x.index_select(0, index), None if self.y is None else self.y.index_select(0, index))

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["epoch"])
        self._start_epoch()
        self.cursor = state["cursor"]


class StreamedBatches:
    """From data that is read as it goes by: only the piece at hand is in memory. Every member of a team reads all."""

    def __init__(
        self, data: Stream, size: int, rng: torch.Generator, device: torch.device, rows: slice = slice(None)
    ) -> None:
        _check(size, len(data))
        self.data, self.size, self.rng, self.device, self.rows = data, size, rng, device, rows
        self._start_epoch()

    def _start_epoch(self, cursor: int = 0) -> None:
        self.epoch = self.rng.get_state()
        seed = int(torch.randint(2**62, (), generator=self.rng))
        self.cursor = cursor
        self.pieces: Iterator[tuple[Tensor, Tensor | None]] = self.data.epoch(seed, cursor)
        self.x: list[Tensor] = []
        self.y: list[Tensor] = []

    def __call__(self) -> Batch:
        if self.cursor + self.size > len(self.data):
            self._start_epoch()
        while sum(map(len, self.x)) < self.size:
            x, y = next(self.pieces)
            self.x.append(x)
            self.y.extend([] if y is None else [y])
        samples, labels = _joined(self.x), _joined(self.y) if self.y else None
        self.x, self.y = [samples[self.size :]], [] if labels is None else [labels[self.size :]]
        self.cursor += self.size
        y = None if labels is None else labels[: self.size][self.rows].to(self.device)
        return Batch(samples[: self.size][self.rows].to(self.device), y)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["epoch"])
        self._start_epoch(state["cursor"])


class Domains:
    """x from one domain, y from another, each in an order of its own: nothing pairs them."""

    def __init__(self, x: Source, y: Source) -> None:
        self.x, self.y = x, y

    def __call__(self) -> Batch:
        return Batch(self.x().x, self.y().x)

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.state_dict(), "y": self.y.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x.load_state_dict(state["x"])
        self.y.load_state_dict(state["y"])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # most batches lie in one piece: nothing is copied


def _check(size: int, available: int) -> None:
    if size > available:
        raise UserError(
            f"training.batch_size: {size} is larger than the training half of the data, {available} samples"
        )

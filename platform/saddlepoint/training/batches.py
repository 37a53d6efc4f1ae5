"""Batches from data that lies on the device whole: a new permutation every epoch, the incomplete last batch
dropped."""

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..games import Batch


class Batches:
    """An endless stream of batches. Its state is a position, so that a resumed run sees the same data go by.

    x: (N, *X), y: (N,) or None. Raises UserError for a batch larger than the data.
    """

    def __init__(self, x: Tensor, y: Tensor | None, size: int, rng: torch.Generator) -> None:
        if size > len(x):
            raise UserError(
                f"training.batch_size: {size} is larger than the training half of the data, {len(x)} samples"
            )
        self.x, self.y, self.size, self.rng = x, y, size, rng
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.epoch = self.rng.get_state()
        self.order = torch.randperm(len(self.x), generator=self.rng).to(self.x.device)
        self.cursor = 0

    def __call__(self) -> Batch:
        if self.cursor + self.size > len(self.x):
            self._start_epoch()
        index = self.order[self.cursor : self.cursor + self.size]
        self.cursor += self.size
        return Batch(self.x.index_select(0, index), None if self.y is None else self.y.index_select(0, index))

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.set_state(state["epoch"])
        self._start_epoch()
        self.cursor = state["cursor"]

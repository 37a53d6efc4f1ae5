"""Processes that play one training together, with the numbers of a single one: data-parallel training.

Every member has the same weights and the same random streams. It draws the order of the whole batch and all of its
noise, and takes its own rows of them; what it then needs of the others are means: of a player's gradients before each
step, of batch statistics (`statistics.py`), of what is logged. So a training does not depend on how many play it, but
for the rounding of sums. (With a stream of random numbers for each member, every number of members would be another
training.) The first member evaluates, reports and writes.

Gradients are averaged as one tensor for each player's move, after `autograd.grad` and outside of autograd: so a move
of several networks, a gradient inside a loss, and a discriminator called twice need no care, as they do where gradients
are averaged by hooks on parameters (torch's DistributedDataParallel).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The members of torch's default process group, as one of them sees it; by default it is alone."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """This member's share of n rows, n being a multiple of the team's size: one after another, in order of rank."""
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def average(self, tensor: Tensor) -> Tensor:
        """The mean over all members; takes the place of what `tensor` held."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (B / size, *X) of all members as one tensor (B, *X): the inverse of `rows`."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def tell(self, value: T) -> T:
        """What the first member says, at every member; anything that can be pickled."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: T) -> list[T]:
        """What every member says, by rank, at every member."""
        if self.size == 1:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box


ALONE = Team()


def here() -> Team:
    """The team that this process was started into."""
    if dist.is_available() and dist.is_initialized():
        return Team(dist.get_rank(), dist.get_world_size())
    return ALONE


def rows_of(tree: Any, rows: slice) -> Any:
    """A batch or noise with those rows of every tensor in it (B, ...)."""
    if isinstance(tree, Tensor):
        return tree[rows]
    if isinstance(tree, tuple):
        parts: Iterable[Any] = (rows_of(part, rows) for part in tree)
        return tree._make(parts) if hasattr(tree, "_make") else tuple(parts)
    if isinstance(tree, list):
        return [rows_of(part, rows) for part in tree]
    if isinstance(tree, Mapping):
        return {name: rows_of(part, rows) for name, part in tree.items()}
    return tree


def parts_of(tree: Any, n: int, parts: int) -> list[Any]:
    """A batch or noise of n rows in equal parts, in order."""
    if parts == 1:
        return [tree]
    share = n // parts
    return [rows_of(tree, slice(part * share, (part + 1) * share)) for part in range(parts)]

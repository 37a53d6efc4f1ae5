"""Training rows that are larger than memory, in an order that a seed fixes.

Row groups are shuffled, as many as fit the memory make a block, and the rows of a block are shuffled: what is held
is one block, as it is stored (images as uint8), and the piece that is given out.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from saddlepoint.data.parquet.table import Table, as_samples


class ParquetStream:
    """The Stream of the rows `kept` (ascending) of a table, with blocks of at most `block_bytes`."""

    def __init__(self, table: Table, kept: NDArray[np.int64], block_bytes: int) -> None:
        self._table, self._kept = table, kept
        self._block = max(1, block_bytes // table.row_bytes)  # rows
        self._pieces = [piece for group in _grouped(kept, table.groups) for piece in _cut(group, self._block)]
        self.fingerprint = hashlib.sha256(f"{table.digest}".encode() + kept.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._kept)

    def epoch(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """As `Stream.epoch`. Raises UserError for a file that is damaged or a row that is not as the others."""
        memory = np.empty((min(self._block, len(self)), *self._table.shape), dtype=self._table.codec.dtype)
        for number, rows in enumerate(self._blocks(seed)):
            if start >= len(rows):  # unread
                start -= len(rows)
                continue
            done = 0
            for numbers, stored in self._table.read(rows):
                memory[done : done + len(numbers)] = stored
                done += len(numbers)
            order = np.random.default_rng([seed, number]).permutation(len(rows))[start:]
            start = 0
            for piece in _cut(order, self._table.at_once):
                yield as_samples(memory[piece]), self._table.labels_of(rows[piece])

    def _blocks(self, seed: int) -> Iterator[NDArray[np.int64]]:
        """The rows of each, ascending."""
        block: list[NDArray[np.int64]] = []
        for index in np.random.default_rng(seed).permutation(len(self._pieces)):
            piece = self._pieces[index]
            if sum(map(len, block)) + len(piece) > self._block:
                yield np.sort(np.concatenate(block))
                block = []
            block.append(piece)
        yield np.sort(np.concatenate(block))


def _grouped(rows: NDArray[np.int64], starts: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    """Ascending rows by the row group that they lie in."""
    return [group for group in np.split(rows, np.searchsorted(rows, starts[1:-1])) if len(group)]


def _cut(rows: NDArray[np.int64], length: int) -> Sequence[NDArray[np.int64]]:
    return [rows[start : start + length] for start in range(0, len(rows), length)]

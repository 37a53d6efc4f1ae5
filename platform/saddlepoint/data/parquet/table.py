"""The rows of a Parquet set: labels, which are held, and samples, which are read when they are asked for."""

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlepoint.data.dataset import Mixture
from saddlepoint.data.images import to_pixels
from saddlepoint.data.parquet.columns import Codec, Stored, codec
from saddlepoint.data.parquet.shards import Shards
from saddlepoint.errors import UserError

COLUMNS = ("image", "sample")  # the first of these that is there, unless the user names one
LABEL = "label"  # may be absent, unless the user names another
PIECE = 16 << 20  # bytes of samples that are decoded at once


class Table:
    """The columns `image` (samples; None: the first of COLUMNS) and `label` (None: no labels) of some shards.

    Raises:
        UserError: a column that is not there, is of the wrong type, or differs between the files; labels that are
            missing in some rows, or out of range.
    """

    def __init__(
        self, shards: Shards, image: str | None, label: str | None, size: int | None, channels: int | None
    ) -> None:
        self._shards = shards
        schema, self.facts = shards.shards[0].schema, shards.shards[0].facts
        there = [column for column in COLUMNS if column in schema.names]
        self._column = image or (there or COLUMNS)[0]
        self._label = None if label == LABEL and label not in schema.names else label
        self._check_columns()
        self.digest = f"{shards.digest} {self._column} {self._label} {size} {channels}"  # content, and how it is read
        _, first = next(shards.read(self._column, np.zeros(1, dtype=np.int64), 1))
        type_ = schema.field(self._column).type
        self.codec: Codec = codec(self._column, type_, self.facts, size, channels, first, shards.where(0))
        self.shape = self.codec.shape
        self.row_bytes = math.prod(self.shape) * np.dtype(self.codec.dtype).itemsize  # as it is stored
        self.at_once = max(1, min(1024, PIECE // self.row_bytes))
        self.classes = None if self._label is None else _class_count(self.facts, self._label)
        self.labels = None if self._label is None else self._read_labels(self._label)

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(groups + 1,) the first row of each row group, and the number of rows."""
        return self._shards.starts

    @property
    def mixture(self) -> Mixture | None:
        """The law of the points, if the metadata tell it."""
        try:
            law = json.loads(self.facts["mixture"])
            return Mixture(torch.tensor(law["means"], dtype=torch.float64), law["std"])
        except (ValueError, TypeError, KeyError):  # none, or other metadata of the same name
            return None

    def read(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Stored]]:
        """Some rows, ascending: their numbers, and the samples as they are stored, in pieces."""
        for numbers, values in self._shards.read(self._column, rows, self.at_once):
            yield numbers, self.codec.decode(values, self._namer(numbers))

    def load(self, rows: NDArray[np.int64]) -> Tensor:
        """Samples (len(rows), *X) float32, in any order of rows. Memory: theirs, and a piece."""
        order = np.argsort(rows, kind="stable")
        loaded, done = torch.empty(len(rows), *self.shape), 0
        for numbers, stored in self.read(rows[order]):
            loaded[order[done : done + len(numbers)]] = as_samples(np.array(stored))
            done += len(numbers)
        return loaded

    def _namer(self, numbers: NDArray[np.int64]) -> Callable[[int], str]:
        return lambda index: self._shards.where(int(numbers[index]))

    def labels_of(self, rows: NDArray[np.int64]) -> Tensor | None:
        return None if self.labels is None else torch.from_numpy(self.labels[rows])

    def _check_columns(self) -> None:
        """That they are in every file, of one type, and that the metadata agree."""
        first = self._shards.shards[0]
        for shard in self._shards.shards:
            for option, column in (("image", self._column), ("label", self._label)):
                if column is None:
                    continue
                if column not in shard.schema.names:
                    known = ", ".join(map(repr, shard.schema.names)) or "none"
                    raise UserError(f"data.{option}: {shard.path!r} has no column {column!r}; its columns: {known}")
                types = first.schema.field(column).type, shard.schema.field(column).type
                if types[0] != types[1]:
                    raise UserError(
                        f"data.{option}: {column!r} is {types[0]} in {first.path!r}, but {types[1]} in {shard.path!r}"
                    )
            for fact in ("shape", "classes"):
                if first.facts.get(fact) != shard.facts.get(fact):
                    raise UserError(f"data.path: the metadata {fact!r} of {first.path!r} and {shard.path!r} differ")

    def _read_labels(self, column: str) -> NDArray[np.int64]:
        values = self._shards.column(column)
        if not pa.types.is_integer(values.type):
            raise UserError(f"data.label: the column {column!r} is of type {values.type}; it must hold integers")
        if values.null_count:
            first = int(np.flatnonzero(values.is_null().to_numpy())[0])
            missing = f"{values.null_count} of {len(values)} rows have none"
            raise UserError(f"data.label: {missing}, first {self._shards.where(first)}; or set label to null")
        labels: NDArray[np.int64] = pc.cast(values, pa.int64(), safe=False).to_numpy().copy()
        if (outside := (labels < 0) | (labels >= (self.classes or np.inf))).any():
            row = int(np.argmax(outside))
            right = f"in 0..{self.classes - 1}" if self.classes else "from 0 up"
            raise UserError(f"data.label: {self._shards.where(row)} has the label {labels[row]}; it must lie {right}")
        return labels


def as_samples(stored: Stored) -> Tensor:
    """Levels as pixels, and numbers as they are. The memory of what is given may be used."""
    tensor = torch.from_numpy(stored)
    return to_pixels(tensor) if tensor.dtype == torch.uint8 else tensor


def _class_count(facts: dict[str, str], label: str) -> int | None:
    """How many names the metadata have: ours under `classes`, or those of Hugging Face's `datasets`."""
    try:
        if "classes" in facts:
            return len(json.loads(facts["classes"]))
        return len(json.loads(facts["huggingface"])["info"]["features"][label]["names"])
    except (ValueError, TypeError, KeyError):  # none, or other metadata of the same name
        return None

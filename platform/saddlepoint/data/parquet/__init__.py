"""Parquet as a data set: a file, a folder of shards, or either on object storage; streamed if larger than memory."""

import math

import numpy as np
from numpy.typing import NDArray

from saddlepoint.data.dataset import Dataset, require
from saddlepoint.data.parquet.shards import Files, Shards, find
from saddlepoint.data.parquet.stream import ParquetStream
from saddlepoint.data.parquet.table import LABEL, Table
from saddlepoint.errors import UserError

HELD_OUT = ("heldout", "test", "validation")  # how files with held-out rows may begin; the first that is there
HELD_OUT_ROWS = 10_000  # by default, if there are no such files; at most half of the rows
SAMPLE = 5_000  # rows of `train` beside a stream, at most
SAMPLED_GROUPS = 256  # row groups that this sample is read from, at most


def parquet(
    path: str,
    image: str | None = None,
    label: str | None = LABEL,
    size: int | None = None,
    channels: int | None = None,
    heldout: str | int | float | None = None,
    memory_mb: int = 2048,
    seed: int = 0,
) -> Dataset:
    """The rows of a Parquet file, of a folder's *.parquet, or of a URI that pyarrow opens (s3://, gs://, file://).

    Images are encoded (PNG, JPEG ...; also Hugging Face's struct of bytes and path), or lists of uint8 (0..255,
    mapped to [-1, 1]) or float32 (as they are) with the shape "C,H,W" in the file's metadata; lists of D float32
    are points. Labels are integers; how many classes there are stands in the metadata (`classes`, a JSON list of
    names, or Hugging Face's), or is one more than the largest.

    Args:
        image: the column; default `image`, or else `sample`, as `saddle generate` writes it.
        label: the column; `label` may be absent, and null means none.
        size, channels: of encoded images: resized and cropped as in `image_folder`, and 1 for grey or 3. By default
            they stay as they are, and must be equal.
        heldout: a path of held-out files, or how many rows are held out, or which fraction: drawn by the seed. By
            default the files of the folder that begin with heldout-, test- or validation-; without such files
            10 000 rows, or half of all. Rows that are drawn cost one pass over the files.
        memory_mb: a decoded set that is larger is streamed: its training half comes block by block (a quarter of
            the memory), `train` is a random sample of it (a quarter, and at most 5000 rows, from at most 256 row
            groups), and the held-out half must fit in the rest.

    The fingerprint is over all samples and labels; of a streamed set over its held-out half, its sample, and for the
    other rows the files' sizes and footers (places, sizes and statistics of all row groups; in files that
    `saddle data import` wrote also a sha256 of the content).

    Raises:
        UserError: nothing there, no Parquet, cut short or damaged; a column that is wrong or missing; images that
            differ in channels or size; labels that are missing or out of range; too few rows.
        SaddleError: the storage does not answer.
    """
    require(memory_mb >= 1, "memory_mb", memory_mb, "at least 1")
    require(seed >= 0, "seed", seed, "0 or more")
    files, apart = _parts(path, heldout)

    def open_(part: Files) -> Table:
        return Table(Shards(part), image, label, size, channels)

    table = open_(files)
    if apart is None:
        held, rows, held_rows = table, *_drawn(len(table), heldout, seed)
    else:
        held = open_(apart)
        rows, held_rows = np.arange(len(table)), np.arange(len(held))
    if table.shape != held.shape:
        raise UserError(f"data.heldout: its samples are {held.shape}, and those of the training half {table.shape}")

    memory, sample_bytes = memory_mb << 20, 4 * math.prod(table.shape)
    stream, shown = None, rows
    if (len(rows) + len(held_rows)) * sample_bytes > memory:
        if len(held_rows) * sample_bytes > memory // 2:
            needed = math.ceil(2 * len(held_rows) * sample_bytes / (1 << 20))
            raise UserError(
                f"data.memory_mb: {memory_mb}; the held-out half, {len(held_rows)} samples, is kept in memory and may "
                f"take half of it: give at least {needed}, or a smaller heldout"
            )
        stream = ParquetStream(table, np.sort(rows), memory // 4)
        shown = _sample(np.sort(rows), table.groups, max(1, min(SAMPLE, memory // 4 // sample_bytes)), seed)
    return Dataset.build(
        table.facts.get("name", files.name),
        "image" if len(table.shape) == 3 else "points",
        table.load(shown),
        held.load(held_rows),
        train_labels=table.labels_of(shown),
        heldout_labels=held.labels_of(held_rows),
        classes=_classes(len(rows) + len(held_rows), table, held),
        mixture=table.mixture,
        stream=stream,
    )


def _parts(path: str, heldout: str | int | float | None) -> tuple[Files, Files | None]:
    """The files with training rows and, unless they are rows of these, those with held-out rows."""
    files = find(path)
    train = files.beginning("train") or files.without(files.beginning(*HELD_OUT)) or files
    if isinstance(heldout, str):
        apart = find(heldout, "data.heldout")
        if not (rest := train.without(apart)):
            raise UserError(f"data.heldout: {heldout!r} is all that there is; nothing is left for training")
        return rest, apart
    named = next((found for word in HELD_OUT if (found := files.beginning(word))), None)
    return train, named if heldout is None and named != train else None


def _classes(rows: int, *tables: Table) -> int | None:
    """As the metadata say, or one more than the largest label."""
    largest = max((int(table.labels.max()) for table in tables if table.labels is not None), default=None)
    if tables[0].classes or largest is None:
        return tables[0].classes
    if largest >= rows:
        what = f"{largest} in {rows} rows is hardly the number of a class"
        raise UserError(f"data.label: {what}; if it is, name the classes in the metadata")
    return largest + 1


def _drawn(n: int, heldout: str | int | float | None, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """0..n-1, shuffled by the seed and parted."""
    if n < 2:
        raise UserError("data.path: one row; training and held-out half need one each")
    match heldout:
        case float():
            require(0 < heldout < 1, "heldout", heldout, "a number of rows, a fraction between 0 and 1, or a path")
            count = min(max(1, round(heldout * n)), n - 1)
        case int():
            require(1 <= heldout < n, "heldout", heldout, f"from 1 to {n - 1} of the {n} rows")
            count = heldout
        case _:
            count = min(HELD_OUT_ROWS, n // 2)
    shuffled = np.random.default_rng(seed).permutation(n)
    return shuffled[count:], shuffled[:count]


def _sample(rows: NDArray[np.int64], starts: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """A random sample of ascending rows, from few enough row groups to be read at once; in random order."""
    rng = np.random.default_rng([seed, 1])  # another stream than the one that parts the halves
    group = np.searchsorted(starts, rows, side="right")
    opened = rng.permutation(np.unique(group))[:SAMPLED_GROUPS]
    return rng.permutation(rows[np.isin(group, opened)])[:most]

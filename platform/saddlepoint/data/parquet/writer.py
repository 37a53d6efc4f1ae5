"""A half of a data set as shards: `train-00000-of-00004.parquet`, one row a sample, in row groups of about 1024.

Shapes   N rows, X the shape of a sample: (C, H, W) or (D,). Stored are levels (uint8) or numbers (float32), as lists
         in row-major order; levels of images also as PNG.
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from saddlepoint.data.parquet.columns import DTYPES
from saddlepoint.data.parquet.halves import Half
from saddlepoint.data.parquet.table import COLUMNS, LABEL

Format = Literal["array", "png"]
FORMATS = ("array", "png")
GROUP_ROWS = 1024
GROUP_BYTES = 16 << 20  # of samples; a row group of larger samples has fewer rows
TYPES = {dtype: type_ for type_, dtype in DTYPES.items()}


def write_shards(
    folder: Path,
    name: str,
    half: Half,
    facts: Mapping[str, str],
    format: Format,
    rows_per_shard: int,
    progress: Callable[[int], None],
) -> list[Path]:
    """Writes the shards of the half called `name`, flushed to the disk. One row group is in memory at a time.

    The metadata of each shard are `facts`, its `shape`, and its `fingerprint`: a sha256 of its samples and labels.
    Pages carry checksums. `progress` hears how many rows were written since it was last called.
    """
    count = -(-len(half) // rows_per_shard)
    paths = [folder / f"{name}-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
    schema = _schema(half, facts, format)
    for index, path in enumerate(paths):
        start, stop = index * rows_per_shard, min((index + 1) * rows_per_shard, len(half))
        with pq.ParquetWriter(path, schema, **_encoding(schema, format)) as writer:
            _fill(writer, half, start, stop, schema, progress)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return paths


def _fill(
    writer: pq.ParquetWriter, half: Half, start: int, stop: int, schema: pa.Schema, progress: Callable[[int], None]
) -> None:
    digest = hashlib.sha256()
    group = max(1, min(GROUP_ROWS, GROUP_BYTES // (math.prod(half.shape) * np.dtype(half.dtype).itemsize)))
    for first in range(start, stop, group):
        last = min(first + group, stop)
        read, labels = half.read(first, last)
        samples = np.ascontiguousarray(read.numpy())
        digest.update(samples.data)
        columns = [_column(samples, schema.field(0).type)]
        if labels is not None:
            digest.update(labels.numpy().data)
            columns.append(pa.array(labels.numpy()))
        writer.write_table(pa.table(columns, schema=schema))
        progress(last - first)
    writer.add_key_value_metadata({"fingerprint": digest.hexdigest()})


def _schema(half: Half, facts: Mapping[str, str], format: Format) -> pa.Schema:
    element = pa.field("element", TYPES[half.dtype], nullable=False)
    type_ = pa.binary() if format == "png" else pa.list_(element, math.prod(half.shape))
    fields = [pa.field(COLUMNS[0] if len(half.shape) == 3 else COLUMNS[1], type_, nullable=False)]
    if half.labelled:
        fields.append(pa.field(LABEL, pa.int64(), nullable=False))
    return pa.schema(fields, metadata={**facts, "shape": ",".join(map(str, half.shape))})


def _encoding(schema: pa.Schema, format: Format) -> dict[str, Any]:
    """Of 256 levels a dictionary is what packs best (Parquet's smallest integer has 32 bits); floats pack by byte."""
    options: dict[str, Any] = {"write_page_checksum": True, "compression": "none" if format == "png" else "zstd"}
    if format == "array" and schema.field(0).type.value_type == pa.uint8():
        return options
    floats = [] if format == "png" else [f"{schema.names[0]}.list.element"]
    return options | {"use_dictionary": schema.names[1:], "use_byte_stream_split": floats}


def _column(samples: NDArray[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_binary(type_):
        return pa.array([_png(sample) for sample in samples], type_)
    return pa.FixedSizeListArray.from_arrays(pa.array(samples.reshape(-1)), type=type_)


def _png(levels: NDArray[np.uint8]) -> bytes:
    """(C, H, W)"""
    file = io.BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, format="PNG")
    return file.getvalue()

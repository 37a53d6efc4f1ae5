"""Parquet sets whose rows can be told apart."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

SHAPE = (3, 16, 16)


@pytest.fixture(scope="session")
def numbered() -> Callable[..., np.ndarray]:
    """`numbered(range(5))`: noise (5, 3, 16, 16) uint8 whose first two levels are the number of the row."""

    def images(rows: range, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
        levels = np.random.default_rng(0).integers(0, 256, (len(rows), *shape), dtype=np.uint8)
        flat = levels.reshape(len(rows), -1)
        flat[:, 0], flat[:, 1] = np.array(rows) // 256, np.array(rows) % 256
        return levels

    return images


@pytest.fixture(scope="session")
def numbers() -> Callable[[torch.Tensor], list[int]]:
    """The numbers of such rows, from pixels."""

    def read(pixels: torch.Tensor) -> list[int]:
        levels = ((pixels.flatten(1)[:, :2] + 1) * 127.5).round().long()
        return (levels[:, 0] * 256 + levels[:, 1]).tolist()

    return read


@pytest.fixture(scope="session")
def arrays() -> Callable[..., pa.Table]:
    """`arrays(images, label=labels)`: a table of fixed-size lists, its shape in the metadata."""

    def table(images: np.ndarray, column: str = "image", facts: dict[str, str] | None = None, **more) -> pa.Table:
        values = pa.array(np.ascontiguousarray(images).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(values, images[0].size)
        shape = ",".join(map(str, images.shape[1:]))
        return pa.table({column: lists, **more}).replace_schema_metadata({"shape": shape, **(facts or {})})

    return table


@pytest.fixture(scope="session")
def encoded() -> Callable[[np.ndarray], list[bytes]]:
    """Levels (n, C, H, W) as PNG files in memory."""

    def png(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, format="PNG")
        return file.getvalue()

    return lambda images: [png(image) for image in images]


@pytest.fixture(scope="session")
def many(tmp_path_factory, numbered, arrays) -> Path:
    """700 numbered rows in 3 files, row groups of 50; the label is the number modulo 7."""
    folder = tmp_path_factory.mktemp("many")
    for index, rows in enumerate((range(300), range(300, 350), range(350, 700))):
        table = arrays(numbered(rows), label=pa.array(np.array(rows) % 7))
        pq.write_table(table, folder / f"part-{index}.parquet", row_group_size=50)
    return folder

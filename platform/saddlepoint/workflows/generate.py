"""Samples from a registered generator, or from a folder with one, as a PNG grid, NPZ or Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ..errors import UserError
from ..files import replacing, write_bytes
from ..tracking import registry
from ..training.generator import Generator, load_generator
from ..training.pictures import picture

FORMATS = (".png", ".npz", ".parquet")


def load(model: str, tracking_uri: str | None = None) -> Generator:
    """`models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder that a training left."""
    if ":" in model:
        return load_generator(registry.fetch(tracking_uri, model))
    if not Path(model).is_dir():
        raise UserError(
            f"model: {model!r} is neither a folder nor of the form models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    return load_generator(Path(model))


def generate(model: str, outputs: Sequence[Path], n: int = 64, seed: int = 0) -> list[Path]:
    """Draws n samples and writes each output in the format of its suffix. The formats are checked before anything."""
    for path in outputs:
        if path.suffix not in FORMATS:
            raise UserError(f"--out: {str(path)!r} ends in none of {', '.join(FORMATS)}")
    generator = load(model)
    samples = generator.sample(n, seed)
    for path in outputs:
        {".png": _png, ".npz": _npz, ".parquet": _parquet}[path.suffix](path, samples)
    return [path.absolute() for path in outputs]


def _png(path: Path, samples: Tensor) -> None:
    drawn = picture(samples, samples)
    if drawn is None:
        raise UserError(f"--out: samples of shape {tuple(samples.shape[1:])} make no picture; use .npz or .parquet")
    write_bytes(path, drawn)


def _npz(path: Path, samples: Tensor) -> None:
    """samples: float32 (n, *X); images in [-1, 1]."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, samples=samples.cpu().numpy())


def _parquet(path: Path, samples: Tensor) -> None:
    """One row a sample: a flat list of float32, in row-major order; the shape stands in the file's metadata."""
    flat = samples.flatten(1).cpu().numpy()
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    shape = ",".join(map(str, samples.shape[1:]))
    table = pa.table({"sample": values}).replace_schema_metadata({"shape": shape})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)

"""Samples from a registered generator, or from a folder with one, as a PNG grid, NPZ or Parquet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ..errors import UserError
from ..files import replacing, write_bytes
from ..generator import Generator, load_generator
from ..randomness import stream
from ..remote import place
from ..tracking import registry
from ..training.look import class_grid
from ..training.pictures import grid, picture

FORMATS = (".png", ".npz", ".parquet")


def load(model: str, tracking_uri: str | None = None) -> Generator:
    """`models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder that a training left, by its path or its URI."""
    if "://" in model:
        return load_generator(place(model, "model"))
    if ":" in model:
        return load_generator(registry.fetch(tracking_uri, model))
    if not Path(model).is_dir():
        raise UserError(
            f"model: {model!r} is neither a folder nor of the form models:/NAME@ALIAS, models:/NAME/VERSION or s3://..."
        )
    return load_generator(Path(model))


def generate(model: str, outputs: Sequence[Path], n: int = 64, seed: int = 0, label: int | None = None) -> list[Path]:
    """Draws n samples and writes each output in the format of its suffix. The formats are checked before anything.

    A conditional model draws one class if asked, or all with the shares that they had in its data; the picture is
    then, instead, one row a class with the same z down each column.
    """
    check_formats(outputs)
    generator = load(model)
    samples, labels = generator.draw(n, stream(seed, "sample"), label)
    for path in outputs:
        if path.suffix == ".png":
            _png(path, generator, samples, seed, by_class=label is None)
        elif path.suffix == ".npz":
            write_npz(path, samples, labels)
        else:
            _parquet(path, samples, labels)
    return [path.absolute() for path in outputs]


def check_formats(outputs: Sequence[Path], formats: Sequence[str] = FORMATS) -> None:
    for path in outputs:
        if path.suffix not in formats:
            raise UserError(f"--out: {str(path)!r} ends in none of {', '.join(formats)}")


def _png(path: Path, generator: Generator, samples: Tensor, seed: int, by_class: bool) -> None:
    drawn = picture(samples, samples)
    if drawn is None:
        raise UserError(f"--out: samples of shape {tuple(samples.shape[1:])} make no picture; use .npz or .parquet")
    if generator.classes and by_class and samples.dim() == 4:
        columns = max(1, len(samples) // generator.classes)
        drawn = grid(class_grid(generator, stream(seed, "sample"), columns), columns)
    write_bytes(path, drawn)


def write_npz(path: Path, samples: Tensor, labels: Tensor | None = None) -> None:
    """samples: float32 (n, *X), images in [-1, 1]; labels: int64 (n,), if they were asked to be of a class."""
    arrays = {"samples": samples.cpu().numpy()} | ({} if labels is None else {"labels": labels.cpu().numpy()})
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _parquet(path: Path, samples: Tensor, labels: Tensor | None) -> None:
    """One row a sample: a flat list of float32, in row-major order; the shape stands in the file's metadata."""
    flat = samples.flatten(1).cpu().numpy()
    columns = {"sample": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])}
    if labels is not None:
        columns["label"] = pa.array(labels.cpu().numpy())
    shape = ",".join(map(str, samples.shape[1:]))
    table = pa.table(columns).replace_schema_metadata({"shape": shape})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)

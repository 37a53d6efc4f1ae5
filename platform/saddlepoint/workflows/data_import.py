"""A data set as Parquet shards: read back bit for bit, and streamed where it is larger than memory."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..data import Dataset, FileSet
from ..data.parquet.halves import Half, OfFiles, OfStream, OfTensors, are_levels
from ..data.parquet.shards import Shards, find
from ..data.parquet.writer import FORMATS, Format, write_shards
from ..errors import SaddleError, UserError, unknown

Progress = Callable[[int, int], None]  # rows written, rows in all


@dataclass(frozen=True)
class Imported:
    folder: Path
    rows: Mapping[str, int]  # by half: train and heldout, of two domains A/train, A/heldout, B/train, B/heldout
    files: int
    bytes: int


def import_data(
    source: str,
    options: Mapping[str, Any],
    out: Path,
    format: Format = "array",
    rows_per_shard: int = 25_000,
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Writes a data set into the folder `out`, which `load("parquet", path=out)` reads; two domains into out/A and
    out/B, each a set of its own.

    `source` is a name of `data.DATASETS`, an import path of one's own function, or a folder of images. What is made
    of image files is read file by file and a streamed set piece by piece, a row group in memory at a time; other
    sets are loaded whole. Images whose pixels are all of the form k / 127.5 - 1 are written as uint8 (format array)
    or as PNG, everything else as float32.

    The folder appears whole or not at all. One that holds the same content already is left as it is.

    Raises:
        UserError: see `data.load`; `out` exists with another content; PNG for what are no 8-bit images.
        SaddleError: it cannot be written.
    """
    if format not in FORMATS:
        raise unknown("--format", format, FORMATS)
    if rows_per_shard < 1:
        raise UserError(f"--rows-per-shard: {rows_per_shard}; it must be at least 1")
    out = out.expanduser().absolute()
    _refuse_foreign(out)
    sets = _open(source, options)
    for part in sets.values():
        if format == "png" and (part.train.dtype != np.uint8 or len(part.train.shape) != 3):
            raise UserError(f"--format: 'png' is for 8-bit images, and those of {part.name!r} are none; use array")
    rows = {f"{place}{half}": len(of_half) for place, part in sets.items() for half, of_half in part.halves.items()}
    done = 0

    def count(written: int) -> None:
        nonlocal done
        done += written
        progress(done, sum(rows.values()))

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            fresh = Path(temporary) / out.name
            for place, part in sets.items():
                (fresh / place).mkdir(parents=True)
                for name, half in part.halves.items():
                    write_shards(fresh / place, name, half, part.facts, format, rows_per_shard, count)
            if not _holds_something(out):
                os.replace(fresh, out)
            elif _content(out, sets) != _content(fresh, sets):
                raise UserError(f"--out: {str(out)!r} holds another data set, or one that was written otherwise")
    except OSError as error:
        raise SaddleError(f"--out: {str(out)!r} cannot be written: {error.strerror or error}") from error
    files = [file for place in sets for file in (out / place).glob("*.parquet")]
    return Imported(out, rows, len(files), sum(file.stat().st_size for file in files))


@dataclass(frozen=True)
class _Part:
    """What one folder of shards will hold."""

    name: str
    train: Half
    heldout: Half
    facts: Mapping[str, str]

    @property
    def halves(self) -> dict[str, Half]:
        return {"train": self.train, "heldout": self.heldout}


def _open(source: str, options: Mapping[str, Any]) -> dict[str, _Part]:
    """By sub-folder: "" for one set, A/ and B/ for two domains."""
    if source not in data.DATASETS and ":" not in source and Path(source).expanduser().is_dir():
        unpaired = (Path(source).expanduser() / "trainA").is_dir()
        source, options = "unpaired_folder" if unpaired else "image_folder", {"path": source, **options}
    if source in data.FILES:
        parts = [_of_files(files) for files in data.image_files(source, **options)]
    else:
        dataset = data.load(source, **options)
        parts = [_of_dataset(part) for part in (dataset, dataset.target) if part is not None]
    return {"": parts[0]} if len(parts) == 1 else dict(zip(("A/", "B/"), parts, strict=True))


def _of_files(files: FileSet) -> _Part:
    return _Part(files.name, OfFiles(files.train), OfFiles(files.heldout), _facts(files.name, files.classes))


def _of_dataset(dataset: Dataset) -> _Part:
    exact = dataset.kind == "image" and are_levels(dataset.train) and are_levels(dataset.heldout)
    dtype = np.uint8 if exact else np.float32
    train: Half
    if dataset.stream is None:
        train = OfTensors(dataset.train, dataset.train_labels, dtype)
    else:
        train = OfStream(dataset.stream, dataset.sample_shape, dataset.classes is not None, dtype)
    classes = None if dataset.classes is None else tuple(map(str, range(dataset.classes)))
    facts = _facts(dataset.name, classes)
    if dataset.mixture is not None:
        facts["mixture"] = json.dumps({"means": dataset.mixture.means.tolist(), "std": dataset.mixture.std})
    return _Part(dataset.name, train, OfTensors(dataset.heldout, dataset.heldout_labels, dtype), facts)


def _facts(name: str, classes: tuple[str, ...] | None) -> dict[str, str]:
    return {"name": name} if classes is None else {"name": name, "classes": json.dumps(classes)}


def _holds_something(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def _refuse_foreign(out: Path) -> None:
    """Before any work: a file, or a folder with something that no import wrote."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: {str(out)!r} is a file; choose a new folder")
    for inside in out.iterdir() if out.exists() else ():
        if not (inside.suffix == ".parquet" or (inside.is_dir() and inside.name in ("A", "B"))):
            raise UserError(f"--out: {str(out)!r} holds {inside.name!r}, which no import wrote; choose a new folder")


def _content(folder: Path, places: Mapping[str, object]) -> object:
    """What is equal for equal imports; None if it cannot be read."""
    try:
        found = [find(str(folder / place)) for place in places]
        return [
            (Path(shard.path).relative_to(folder), shard.footer.num_rows, shard.schema, shard.facts)
            for files in found
            for shard in Shards(files).shards
        ]
    except SaddleError:
        return None

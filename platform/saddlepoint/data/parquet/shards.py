"""Parquet files, on a disk or on object storage: found, looked into, and read in small pieces."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from saddlepoint.errors import SaddleError, UserError

BUFFER = 4 << 20  # bytes of a column that are held while it is read, however large the row group


@dataclass(frozen=True)
class Files:
    """Parquet files of one folder, in the order of their names."""

    filesystem: fs.FileSystem
    name: str
    paths: tuple[str, ...]
    key: str  # where the user named them

    def __len__(self) -> int:
        return len(self.paths)

    def beginning(self, *words: str) -> "Files":
        """Those whose name begins with one of the words, as train-00000-of-00004.parquet does with train."""
        begin = re.compile(f"({'|'.join(words)})(?![A-Za-z])")
        return replace(self, paths=tuple(path for path in self.paths if begin.match(PurePosixPath(path).name)))

    def without(self, others: "Files") -> "Files":
        return replace(self, paths=tuple(path for path in self.paths if path not in others.paths))


def find(path: str, key: str = "data.path") -> Files:
    """The file at `path`, or all *.parquet in the folder; a URI (s3://, gs://, file://) names its file system.

    Raises:
        UserError: nothing is there, or nothing of that kind.
        SaddleError: the storage does not answer.
    """
    try:
        if "://" in path:
            filesystem, place = fs.FileSystem.from_uri(path)
        else:
            filesystem, place = fs.LocalFileSystem(), Path(path).expanduser().absolute().as_posix()
        info = filesystem.get_file_info(place)
        folder = info.type == fs.FileType.Directory
        inside = filesystem.get_file_info(fs.FileSelector(place)) if folder else [info]
    except (pa.ArrowException, ImportError) as error:  # no such kind of URI, or its library is not installed
        raise UserError(f"{key}: {path!r} cannot be opened: {reason(error)}") from error
    except OSError as error:
        raise SaddleError(f"{key}: {path!r} cannot be reached: {reason(error)}") from error
    if info.type == fs.FileType.NotFound:
        raise UserError(f"{key}: {path!r} does not exist")
    found = [file.path for file in inside if not folder or (file.is_file and _is_shard(file.base_name))]
    if not found:
        raise UserError(f"{key}: the folder {path!r} holds no .parquet file")
    return Files(filesystem, PurePosixPath(place).stem, tuple(sorted(found)), key)


def _is_shard(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith((".", "_"))  # as Spark and Hive name what is not data


@dataclass(frozen=True)
class Shard:
    path: str
    footer: pq.FileMetaData
    digest: str
    schema: pa.Schema
    facts: dict[str, str]  # the metadata


class Shards:
    """The rows of all files, numbered through, in row groups.

    Raises:
        UserError: a file that is no Parquet or is cut short; no rows at all. While it is read: a damaged one.
        SaddleError: the storage does not answer.
    """

    def __init__(self, files: Files) -> None:
        self._filesystem, self._key = files.filesystem, files.key
        self.shards = [self._open(path) for path in files.paths]
        self.digest = hashlib.sha256("".join(shard.digest for shard in self.shards).encode()).hexdigest()
        self._groups = [(shard, group) for shard in self.shards for group in range(shard.footer.num_row_groups)]
        rows = [shard.footer.row_group(group).num_rows for shard, group in self._groups]
        self.starts = np.cumsum([0, *rows], dtype=np.int64)  # (groups + 1,) the first row of each, and the end
        self._first_rows = np.cumsum([0, *(shard.footer.num_rows for shard in self.shards)], dtype=np.int64)
        if len(self) == 0:
            raise UserError(f"{files.key}: {files.paths[0]!r} holds no rows")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def where(self, row: int) -> str:
        """For a person: the row counts from 0 in its file."""
        file = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return f"row {row - self._first_rows[file]} of {self.shards[file].path!r}"

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows, whole."""
        chunks = []
        for shard in self.shards:
            with self._reading(shard) as parquet:
                chunks += parquet.read(columns=[name], use_threads=False).column(0).chunks
        return pa.chunked_array(chunks)

    def read(self, column: str, rows: NDArray[np.int64], at_once: int) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        """Some rows of a column, ascending: their numbers and values, in pieces of at most `at_once` rows.

        Only the row groups that hold some of them are opened; no more than a piece is held.
        """
        first, last = np.searchsorted(rows, self.starts[:-1]), np.searchsorted(rows, self.starts[1:])
        for group in np.flatnonzero(last > first):
            wanted, start = rows[first[group] : last[group]], int(self.starts[group])
            shard, index = self._groups[group]
            with self._reading(shard) as parquet:
                for batch in parquet.iter_batches(at_once, row_groups=[index], columns=[column], use_threads=False):
                    here = wanted[: np.searchsorted(wanted, start + len(batch))]
                    wanted = wanted[len(here) :]
                    if len(here):
                        values = batch.column(0)
                        yield here, values if len(here) == len(batch) else values.take(pa.array(here - start))
                    start += len(batch)
                    if len(wanted) == 0:
                        break

    def _open(self, path: str) -> Shard:
        """With the sha256 of footer and file size: a footer holds size, place and statistics of everything in the
        file, so other content hardly ever has an equal one."""
        try:
            with self._filesystem.open_input_file(path) as file:
                size = file.size()
                footer = pq.read_metadata(file)
                file.seek(size - footer.serialized_size - 8)  # its length and the magic bytes come after it
                digest = hashlib.sha256(size.to_bytes(8, "big") + file.read()).hexdigest()
            facts = {key.decode(): value.decode(errors="replace") for key, value in (footer.metadata or {}).items()}
            return Shard(path, footer, digest, footer.schema.to_arrow_schema(), facts)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._failure(path, "is no Parquet file, or is cut short", error) from error

    @contextmanager
    def _reading(self, shard: Shard) -> Iterator[pq.ParquetFile]:
        options = {"buffer_size": BUFFER, "pre_buffer": False, "page_checksum_verification": True}
        try:
            with (
                self._filesystem.open_input_file(shard.path) as source,
                pq.ParquetFile(source, metadata=shard.footer, **options) as parquet,
            ):
                yield parquet
        except (pa.ArrowException, OSError) as error:
            raise self._failure(shard.path, "is damaged", error) from error

    def _failure(self, path: str, what: str, error: Exception) -> SaddleError:
        """A file that is wrong is the user's; storage that fails is not, and of that Arrow makes an OSError."""
        if isinstance(error, OSError) and not isinstance(self._filesystem, fs.LocalFileSystem):
            return SaddleError(f"{self._key}: {path!r} cannot be read: {reason(error)}")
        if isinstance(error, OSError) and error.errno:  # what the system said, not what Arrow found inside
            what = "cannot be read"
        return UserError(f"{self._key}: {path!r} {what}: {reason(error)}")


def reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

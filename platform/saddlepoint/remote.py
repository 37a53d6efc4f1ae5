"""A file or folder on any filesystem that pyarrow opens (S3, GCS, Azure, HDFS ...), named by its URI.

Object stores have no rename, folders only as far as there is something in them, and hiccups: what is here is what holds
on all of them. A file is whole or absent; what fails and can pass is tried again for two minutes.
"""

import errno
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from posixpath import join
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlsplit

from .errors import SaddleError, UserError

if TYPE_CHECKING:
    from pyarrow import fs

T = TypeVar("T")


class Outage(SaddleError):
    """A storage has not done for two minutes what it was asked; later it may."""


PATIENCE = 120.0  # seconds for which a storage that fails is asked again
PAUSES = (1.0, 30.0)  # seconds: the first, doubled up to the last
GOOGLE = "retry_limit_seconds=15"  # its client's own patience, within each attempt of ours; else 15 minutes
HABITS = {"s3": "allow_delayed_open=true", "gs": GOOGLE, "gcs": GOOGLE}  # s3: one request for a small file, not three
ATOMIC = ("s3", "gcs")  # where an object is there when all of it has arrived, and not before
# Arrow has one kind of error for most that a storage says; by these words it is one that will not pass.
FINAL = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|HTTP status (3\d\d|40[0-7])"
    r"|Status\((PERMISSION_DENIED|UNAUTHENTICATED)|Azure Error: \[\w*\] 40[0-7]|Unable to load lib"
)
KIND = re.compile(r"AWS Error \w+( \(HTTP status \d+\))?|google::cloud::Status\(\w+|Azure Error: \[\w*\] \d+")
ABSENT = re.compile(r"Status\(NOT_FOUND")  # what Arrow makes no FileNotFoundError of


class Remote:
    """As much of pathlib.Path as is needed.

    It is no more than its URI: each process opens the filesystem for itself, with the credentials that it finds
    (AWS_ACCESS_KEY_ID and its like), so none are pickled, printed or written down.

    Every call but those on the name alone asks the storage. It raises FileNotFoundError for a file that is not there,
    and SaddleError, in one line, if the storage refuses or has not answered for two minutes.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @property
    def uri(self) -> str:
        return self._uri

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"Remote({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __truediv__(self, name: str) -> "Remote":
        place, mark, query = self.uri.partition("?")
        return Remote(f"{place.rstrip('/')}/{quote(name)}{mark}{query}")

    @property
    def parent(self) -> "Remote":
        place, mark, query = self.uri.partition("?")
        return Remote(place.rstrip("/").rpartition("/")[0] + mark + query)

    @property
    def name(self) -> str:
        return unquote(self.uri.partition("?")[0].rstrip("/").rpartition("/")[2])

    @property
    def filesystem(self) -> "fs.FileSystem":
        return _opened(self._parts[0])[0]

    @property
    def path(self) -> str:
        """As its filesystem knows it: "bucket/prefix/name"."""
        root, inside = self._parts
        top = _opened(root)[1]
        return join(top, inside) if inside else top

    @property
    def _host(self) -> str:
        return self._parts[0].partition("?")[0].rstrip("/")

    @property
    def _parts(self) -> tuple[str, str]:
        """The URI of the filesystem's root, and the way from there."""
        place, mark, query = self.uri.partition("?")
        scheme, _, rest = place.partition("://")
        host, _, inside = rest.partition("/")
        return f"{scheme}://{host}/{mark}{query}", unquote(inside.rstrip("/"))

    def exists(self) -> bool:
        """Of a folder: whether there is anything in it, or has been."""
        return self._type() != "NotFound"

    def is_dir(self) -> bool:
        return self._type() == "Directory"

    def _type(self) -> str:
        return str(self._patiently(lambda: self.filesystem.get_file_info(self.path)).type.name)

    def read_bytes(self) -> bytes:
        def read() -> bytes:
            with self.filesystem.open_input_file(self.path) as file:
                return bytes(file.read())

        return self._patiently(read)

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """A reader sees the old content or the new one, never a part."""
        self._patiently(lambda: self._put(content))

    def _put(self, content: bytes) -> None:
        files = self.filesystem
        if files.type_name in ATOMIC:
            _write(files, self.path, content)
            return
        beside = self.parent / f".{self.name}.{secrets.token_hex(4)}"
        files.create_dir(self.parent.path, recursive=True)
        try:
            _write(files, beside.path, content)
            try:
                files.move(beside.path, self.path)
            except NotImplementedError:  # Azure without a hierarchical namespace
                files.copy_file(beside.path, self.path)
                files.delete_file(beside.path)
        except BaseException:
            with suppress(OSError):
                files.delete_file(beside.path)
            raise

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._patiently(lambda: self.filesystem.delete_file(self.path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> list["Remote"]:
        """What lies directly in the folder under such a name; nothing if there is no folder."""
        return [found for found, _, _ in self._inside() if fnmatchcase(found.name, pattern)]

    def rglob(self, pattern: str) -> list["Remote"]:
        """All files, not folders, under such a name, however deep."""
        return [found for found in self.files() if fnmatchcase(found.name, pattern)]

    def files(self) -> dict["Remote", int]:
        """All files, however deep, and their bytes."""
        return {found: size for found, kind, size in self._inside(recursive=True) if kind == "File"}

    def _inside(self, recursive: bool = False) -> list[tuple["Remote", str, int]]:
        from pyarrow import fs

        def look() -> list["fs.FileInfo"]:
            selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
            return list(self.filesystem.get_file_info(selector))

        found, start = self._patiently(look), len(self.path)
        return [(self / info.path[start:].strip("/"), info.type.name, info.size) for info in found]

    def remove(self, patience: float = PATIENCE) -> None:
        """The whole folder, file by file and in no order; nothing if there is none."""
        with suppress(FileNotFoundError):
            self._patiently(lambda: self.filesystem.delete_dir(self.path), patience)

    def check(self, key: str) -> None:
        """Writes a small file and deletes it. Raises UserError, which names the key, if that fails."""
        probe = self / f".saddle-{secrets.token_hex(4)}"
        try:
            probe._patiently(lambda: probe._put(b""), patience=0.0)
            probe._patiently(lambda: probe.filesystem.delete_file(probe.path), patience=0.0)
        except (SaddleError, OSError) as error:
            raise UserError(f"{key}: {self.uri!r} cannot be used: {_reason(error.__cause__ or error)}") from error

    def _patiently(self, attempt: Callable[[], T], patience: float = PATIENCE) -> T:
        from pyarrow import ArrowException

        pause, end = PAUSES[0], time.monotonic() + patience
        while True:
            try:
                return attempt()
            except (OSError, ArrowException) as error:
                if isinstance(error, FileNotFoundError) or ABSENT.search(str(error)):
                    raise FileNotFoundError(errno.ENOENT, "no such file", str(self)) from error
                if _final(error):
                    raise SaddleError(f"{self._host}: the storage refuses: {_kind(error)}") from error
                if time.monotonic() + pause > end:
                    raise Outage(f"{self._host}: the storage fails: {_kind(error)}") from error
            time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])


Place = Path | Remote


def place(text: str, key: str = "storage") -> Place:
    """What a path or a URI names. Raises UserError, which names the key and no secret, for a URI with one in it: it
    would stand in files and messages."""
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    user, at, host = parts.netloc.rpartition("@")
    if at and (parts.scheme == "s3" or ":" in user):
        instead = " and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead" if parts.scheme == "s3" else ""
        raise UserError(
            f"{key}: '{parts.scheme}://{host}{parts.path}' has access keys before its @, which would stand in files "
            f"and messages; leave them out{instead}"
        )
    return Remote(re.sub(r"(?<=[^/:])/+(?=\?|$)", "", text))


def discard(folder: Place) -> None:
    """A folder of scratch files: gone at once if that can be, or left where it is in nobody's way."""
    if isinstance(folder, Remote):
        with suppress(SaddleError):
            folder.remove(patience=0.0)
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def at_hand(found: Place) -> Iterator[Path]:
    """The file or folder as one on this machine: itself, or a copy of it, or of the files in it, for a while."""
    if isinstance(found, Path):
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="saddle-") as temporary:
        copy = Path(temporary, found.name)
        if found.is_dir():
            copy.mkdir()
            for file, kind, _ in found._inside():
                if kind == "File":
                    (copy / file.name).write_bytes(file.read_bytes())
        else:
            copy.write_bytes(found.read_bytes())
        yield copy


@cache
def _opened(root: str) -> tuple["fs.FileSystem", str]:
    """The filesystem of a root, and the root's own path there. Raises UserError for a URI of no kind that there is."""
    from pyarrow import ArrowException, ArrowInvalid, fs

    scheme, (host, mark, query) = root.partition("://")[0], root.partition("?")
    try:
        with suppress(ArrowInvalid):  # an older pyarrow that does not know it, or no such URI at all
            if (habit := HABITS.get(scheme)) and habit.partition("=")[0] not in query:
                return tuple(fs.FileSystem.from_uri(f"{host}?{query}&{habit}" if mark else f"{host}?{habit}"))
        return tuple(fs.FileSystem.from_uri(root))
    except (ArrowException, ImportError) as error:
        raise UserError(f"{root!r} cannot be opened: {_reason(error)}") from error


def _write(filesystem: "fs.FileSystem", path: str, content: bytes) -> None:
    stream = filesystem.open_output_stream(path)  # no context manager, which would also close what broke off
    stream.write(content)
    stream.close()


def _final(error: BaseException) -> bool:
    kinds = PermissionError | IsADirectoryError | NotADirectoryError | ValueError | NotImplementedError
    return isinstance(error, kinds) or FINAL.search(str(error)) is not None


def _kind(error: BaseException) -> str:
    """Without the file, the operation and the milliseconds: one trouble has one name, whatever it strikes. The cause
    has the rest."""
    found = KIND.search(str(error))
    return found.group() if found else _reason(error)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

"""Files that are whole or absent: written under a temporary name, flushed to the disk, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .remote import Place, Remote, place

_CACHE = Path("~/.cache/saddlepoint")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes `path`'s place, on failure it is removed.

    A reader, or a process that starts after a crash, sees the old content or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that nobody else may read
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_bytes(path: Place, content: bytes) -> None:
    if isinstance(path, Remote):
        path.write_bytes(content)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Place, content: str) -> None:
    write_bytes(path, content.encode())


def cache_folder() -> Path:
    """Where what can be downloaded again is kept on this machine: `$SADDLE_CACHE`, if that is no URI, else
    `~/.cache/saddlepoint`."""
    chosen = shared_cache()
    return chosen if isinstance(chosen, Path) else _CACHE.expanduser()


def shared_cache() -> Place:
    """Where what can be made again is kept: `$SADDLE_CACHE`, a folder or a URI, else `~/.cache/saddlepoint`."""
    chosen = place(os.environ.get("SADDLE_CACHE") or str(_CACHE), "SADDLE_CACHE")
    return chosen.expanduser() if isinstance(chosen, Path) else chosen

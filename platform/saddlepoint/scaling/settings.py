"""Ray's settings are environment variables, read when a run begins."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saddlepoint.remote import Place


@contextmanager
def settled(settings: Mapping[str, str]) -> Iterator[None]:
    """With these settings in the environment."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def stored(folder: Place) -> dict[str, Any]:
    """A folder for Ray's files, as its RunConfig takes it."""
    if isinstance(folder, Path):
        return {"storage_path": str(folder.resolve())}
    return {"storage_path": folder.path, "storage_filesystem": folder.filesystem}

"""A run on disk: one file that is whole or absent, of tensors and plain values; to load it runs no code."""

import io
from pathlib import Path
from typing import Any

import torch

from ..errors import SaddleError
from ..files import write_bytes


def save(path: Path, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch's own writer hides why a disk would not take the file
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """The state, its tensors on the CPU, or None if there is no checkpoint."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SaddleError(
            f"{path} cannot be read as a checkpoint: {type(error).__name__}; remove it to start over"
        ) from error
    return state

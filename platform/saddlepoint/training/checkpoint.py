"""A run on disk: one file that is whole or absent, of tensors and plain values; to load it runs no code."""

import io
from typing import Any

import torch

from ..errors import SaddleError
from ..files import write_bytes
from ..remote import Place, Remote


def save(path: Place, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch's own writer hides why a disk would not take the file
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Place) -> dict[str, Any] | None:
    """The state, its tensors on the CPU, or None if there is no checkpoint."""
    try:
        source = io.BytesIO(path.read_bytes()) if isinstance(path, Remote) else path
        state: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except SaddleError:
        raise
    except Exception as error:
        raise SaddleError(
            f"{path} cannot be read as a checkpoint: {type(error).__name__}; remove it to start over"
        ) from error
    return state

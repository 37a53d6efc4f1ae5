"""Image files: found, decoded to 8-bit levels, and read when they are asked for.

Shapes   B images, C channels (1 or 3), H height, W width. Levels are uint8, 0..255; pixels are float32, -1..1.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from saddlepoint.data.dataset import Dataset, require
from saddlepoint.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB"}
AT_ONCE = 1024  # images between two calls of a loop that keeps memory flat


def to_pixels(levels: Tensor) -> Tensor:
    return levels.float().div_(127.5).sub_(1)


def to_levels(pixels: Tensor) -> Tensor | None:
    """The levels that give exactly these pixels, bit for bit; None if there are none."""
    nearest = pixels.add(1).mul_(127.5).round_().clamp_(0, 255).byte()
    return nearest if torch.equal(to_pixels(nearest), pixels) else None


def two_toned(pixels: Tensor) -> Tensor:
    """1 where a pixel is above the middle, else -1: what a Bernoulli likelihood needs."""
    return torch.where(pixels > 0, 1.0, -1.0)


def find_images(root: Path) -> list[Path]:
    """The image files under `root`, at any depth, relative to it and sorted; hidden ones do not count."""
    found = (file.relative_to(root) for file in root.rglob("*") if not file.is_dir())
    return sorted(file for file in found if _is_image(file))


def _is_image(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return relative.suffix.lower() in SUFFIXES and not hidden


def decode(encoded: Path | BinaryIO, name: str, size: int | None, channels: int | None) -> NDArray[np.uint8]:
    """The levels (C, H, W) of an encoded image.

    The shorter side is resized to `size` (bicubic), the longer one cropped around its centre; None keeps both.
    Without `channels` they are those of the image: 1 if it is grey. Transparency is laid over white; an animation
    gives its first frame.

    Raises:
        UserError: it cannot be read; `name` says which one it is.
    """
    try:
        with Image.open(encoded) as image:
            upright = ImageOps.exif_transpose(image)
            grey = upright.mode in ("1", "L", "LA", "La", "F") or upright.mode.startswith("I")
            if upright.has_transparency_data:
                colours = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
            if upright.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip them at 255
                deep = (np.asarray(upright) / 257).round().clip(0, 255)
                upright = Image.fromarray(deep.astype(np.uint8))
            upright = upright.convert(MODES[channels or (1 if grey else 3)])
            fitted = upright if size is None else ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # a decoder raises what it likes: OSError, SyntaxError, struct.error ...
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"data.path: image {name} cannot be read: {reason}") from error
    seen: NDArray[np.uint8] = np.asarray(fitted)
    return seen[None] if seen.ndim == 2 else seen.transpose(2, 0, 1)


def side_by_side(n: int, task: Callable[[int], None]) -> None:
    """task(0) ... task(n - 1) on a few threads; the first failure comes out and ends the rest."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(task, range(n)):
            pass


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One half of a data set, as files."""

    files: Sequence[Path]
    labels: Tensor | None  # (N,) int64
    size: int
    channels: int

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", self.size, "at least 1")
        require(self.channels in MODES, "channels", self.channels, "1 or 3")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, start: int, stop: int) -> Tensor:
        """The levels (stop - start, C, size, size) of some of them. Raises UserError for one that cannot be read."""
        read = np.empty((stop - start, self.channels, self.size, self.size), dtype=np.uint8)

        def fill(row: int) -> None:
            file = self.files[start + row]
            read[row] = decode(file, repr(str(file)), self.size, self.channels)

        side_by_side(len(read), fill)
        return torch.from_numpy(read)

    def load(self) -> Tensor:
        """All pixels (N, C, size, size). Memory: theirs only."""
        whole = torch.empty(len(self), self.channels, self.size, self.size)
        for start in range(0, len(self), AT_ONCE):
            stop = min(start + AT_ONCE, len(self))
            whole[start:stop] = to_pixels(self.read(start, stop))
        return whole


@dataclass(frozen=True, eq=False)
class FileSet:
    """A data set whose images are still files."""

    name: str
    train: ImageFiles
    heldout: ImageFiles
    classes: tuple[str, ...] | None = None  # by label

    def load(self) -> Dataset:
        return Dataset.build(
            self.name,
            "image",
            self.train.load(),
            self.heldout.load(),
            train_labels=self.train.labels,
            heldout_labels=self.heldout.labels,
            classes=None if self.classes is None else len(self.classes),
        )

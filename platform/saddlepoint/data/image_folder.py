"""A folder of images of any size, as one data set of square images."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from saddlepoint.data.dataset import Dataset, halves, require
from saddlepoint.errors import UserError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB"}


def image_folder(path: str | Path, size: int = 32, channels: int = 3, seed: int = 0) -> Dataset:
    """Every image under `path`, at any depth, as (channels, size, size) in [-1, 1]; hidden ones do not count.

    The shorter side is resized to `size` (bicubic), the longer one cropped around its centre; channels 1 is
    grey. Transparency is laid over white; an animation gives its first frame. If every image lies in a
    sub-folder of `path`, and these are two or more, the first folder's name is the label. The halves come
    from a shuffle of the sorted relative paths, fixed by the seed and stratified by label. Memory: the
    resulting tensors only.

    Raises:
        UserError: no such folder, fewer than two images in it, or one that cannot be read (it is named).
    """
    require(size >= 1, "size", size, "at least 1")
    require(channels in MODES, "channels", channels, "1 or 3")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path: {str(path)!r} is not a folder")
    found = (file.relative_to(root) for file in root.rglob("*") if not file.is_dir())
    files = sorted(file for file in found if _is_image(file))
    if len(files) < 2:
        few = f"one image, {files[0].name!r}" if files else f"no image ({', '.join(sorted(SUFFIXES))})"
        raise UserError(f"data.path: {str(path)!r} holds {few}; at least 2 are needed")

    labels, classes = _labels(files)
    train, heldout = halves(len(files), seed, labels)

    def read(half: NDArray[np.int64]) -> Tensor:
        images = torch.empty(len(half), channels, size, size)

        def fill(row: int) -> None:
            images[row] = _read(root / files[half[row]], size, channels)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(fill, range(len(half))):  # the first failure comes out here and ends the rest
                pass
        return images

    return Dataset.build(
        root.resolve().name,
        "image",
        read(train),
        read(heldout),
        train_labels=None if labels is None else torch.from_numpy(labels[train]),
        heldout_labels=None if labels is None else torch.from_numpy(labels[heldout]),
        classes=classes,
    )


def _is_image(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return relative.suffix.lower() in SUFFIXES and not hidden


def _labels(files: list[Path]) -> tuple[NDArray[np.int64], int] | tuple[None, None]:
    if any(len(file.parts) == 1 for file in files):
        return None, None
    folders = sorted({file.parts[0] for file in files})
    if len(folders) < 2:
        return None, None
    number = {folder: label for label, folder in enumerate(folders)}
    return np.array([number[file.parts[0]] for file in files], dtype=np.int64), len(folders)


def _read(file: Path, size: int, channels: int) -> Tensor:
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                colours = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
            if upright.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip them at 255
                levels = (np.asarray(upright) / 257).round().clip(0, 255)
                upright = Image.fromarray(levels.astype(np.uint8))
            fitted = ImageOps.fit(upright.convert(MODES[channels]), (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # a decoder raises what it likes: OSError, SyntaxError, struct.error ...
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"data.path: image {str(file)!r} cannot be read: {reason}") from error
    pixels = torch.from_numpy(np.array(fitted, dtype=np.float32)).reshape(size, size, channels)
    return pixels.permute(2, 0, 1) / 127.5 - 1

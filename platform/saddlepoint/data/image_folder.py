"""A folder of images of any size, as one data set of square images."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from saddlepoint.data.dataset import Dataset, halves
from saddlepoint.data.images import SUFFIXES, FileSet, ImageFiles, find_images
from saddlepoint.errors import UserError


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
    return image_folder_files(path, size, channels, seed).load()


def image_folder_files(path: str | Path, size: int = 32, channels: int = 3, seed: int = 0) -> FileSet:
    """The same, without reading an image."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path: {str(path)!r} is not a folder")
    files = find_images(root)
    if len(files) < 2:
        few = f"one image, {files[0].name!r}" if files else f"no image ({', '.join(sorted(SUFFIXES))})"
        raise UserError(f"data.path: {str(path)!r} holds {few}; at least 2 are needed")
    labels, classes = _labels(files)

    def half(rows: NDArray[np.int64]) -> ImageFiles:
        chosen = None if labels is None else torch.from_numpy(labels[rows])
        return ImageFiles([root / files[row] for row in rows], chosen, size, channels)

    train, heldout = halves(len(files), seed, labels)
    return FileSet(root.resolve().name, half(train), half(heldout), classes)


def _labels(files: list[Path]) -> tuple[NDArray[np.int64], tuple[str, ...]] | tuple[None, None]:
    if any(len(file.parts) == 1 for file in files):
        return None, None
    folders = sorted({file.parts[0] for file in files})
    if len(folders) < 2:
        return None, None
    number = {folder: label for label, folder in enumerate(folders)}
    return np.array([number[file.parts[0]] for file in files], dtype=np.int64), tuple(folders)

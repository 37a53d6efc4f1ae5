"""Two domains without pairs, for translation: from folders in the layout that everybody has, and from the digits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from saddlepoint.data.dataset import Dataset, halves, join
from saddlepoint.data.digits import digits
from saddlepoint.data.images import SUFFIXES, FileSet, ImageFiles, find_images
from saddlepoint.errors import UserError, unknown


def unpaired_folder(path: str | Path, size: int = 256, channels: int = 3) -> Dataset:
    """The folders trainA, trainB, testA and testB under `path` (as horse2zebra has them): A, and B as its target.

    The training halves are trainA and trainB, the held-out halves testA and testB; no labels. Images are read as
    `image_folder` reads them: the shorter side resized to `size`, the longer one cropped.

    Raises:
        UserError: one of the four is missing or holds no image, or an image cannot be read (it is named).
    """
    a, b = unpaired_folder_files(path, size, channels)
    return join(Path(path).expanduser().resolve().name, a.load(), b.load())


def unpaired_folder_files(path: str | Path, size: int = 256, channels: int = 3) -> tuple[FileSet, FileSet]:
    """A and B without reading an image."""
    root = Path(path).expanduser()

    def half(name: str) -> ImageFiles:
        folder = root / name
        if not folder.is_dir():
            raise UserError(f"data.path: {str(folder)!r} is not a folder; trainA, trainB, testA and testB are needed")
        if not (files := find_images(folder)):
            raise UserError(f"data.path: {str(folder)!r} holds no image ({', '.join(sorted(SUFFIXES))})")
        return ImageFiles([folder / file for file in files], None, size, channels)

    a, b = (FileSet(side, half(f"train{side}"), half(f"test{side}")) for side in "AB")
    return a, b


def _rotate(images: Tensor) -> Tensor:
    return images.rot90(1, (2, 3)).contiguous()


TASKS: Mapping[str, Callable[[Tensor], Tensor]] = {"invert": torch.neg, "rotate": _rotate}


def digits_pairs(task: Literal["invert", "rotate"] = "invert", seed: int = 0) -> Dataset:
    """Handwritten digits as they are, and transformed: inverted (-x), or rotated by 90 degrees to the left.

    The training half of `digits` is dealt into two disjoint parts of 449, stratified by class: one domain holds
    the images of the first, the other the transformed images of the second. The held-out halves are true pairs:
    each image, and its transform. Labels on both sides.
    """
    if task not in TASKS:
        raise unknown("data.task", task, TASKS)
    transform = TASKS[task]
    source = digits(seed)
    assert source.train_labels is not None  # the digits have labels
    first, second = (torch.from_numpy(part) for part in halves(len(source.train), seed, source.train_labels.numpy()))

    def domain(name: str, rows: Tensor, train: Tensor, heldout: Tensor) -> Dataset:
        assert source.train_labels is not None
        return Dataset.build(
            name,
            "image",
            train,
            heldout,
            train_labels=source.train_labels[rows],
            heldout_labels=source.heldout_labels,
            classes=source.classes,
        )

    x = domain("digits", first, source.train[first], source.heldout)
    y = domain(task, second, transform(source.train[second]), transform(source.heldout))
    return join("digits_pairs", x, y, paired=True)

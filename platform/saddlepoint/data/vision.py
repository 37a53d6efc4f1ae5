"""torchvision's data sets by name, on their official halves; downloaded once, checked by torchvision's checksums.

A download goes to a folder of its own and is moved to its place when all of it was opened: one that breaks leaves
nothing behind. Files that were put into place by hand are checked and used.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saddlepoint.data.dataset import Dataset, require
from saddlepoint.data.images import FileSet, ImageFiles, to_pixels, two_toned
from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.files import cache_folder


def mnist(root: str | None = None, size: int | None = None, binary: bool = False, download: bool = True) -> Dataset:
    """60 000 training and 10 000 held-out digits (1, 28, 28) in [-1, 1], or (1, size, size), with labels 0..9.

    Args:
        root: the folder that holds, or will hold, torchvision's folder MNIST; default `datasets` in
            `$SADDLE_CACHE`, else in `~/.cache/saddlepoint`.
        binary: pixels above the middle become 1, others -1.

    Raises:
        SaddleError: it has to be downloaded, and that fails.
        UserError: it is not there and `download` is off, or the root cannot be used.
    """
    from torchvision.datasets import MNIST  # a second to import, which other data need not pay

    return _grey("mnist", MNIST, root, size, binary, download)


def fashion_mnist(
    root: str | None = None, size: int | None = None, binary: bool = False, download: bool = True
) -> Dataset:
    """60 000 training and 10 000 held-out images of clothes; else as `mnist`, in the folder FashionMNIST."""
    from torchvision.datasets import FashionMNIST

    return _grey("fashion_mnist", FashionMNIST, root, size, binary, download)


def cifar10(root: str | None = None, size: int | None = None, download: bool = True) -> Dataset:
    """50 000 training and 10 000 held-out photographs (3, 32, 32), or (3, size, size), of 10 classes.

    Else as `mnist`, in the folder cifar-10-batches-py. Its files are pickles: torchvision opens none whose checksum
    is not the published one.
    """
    from torchvision.datasets import CIFAR10

    files = {CIFAR10.filename: CIFAR10.tgz_md5}
    wanted = _Wanted("cifar10", CIFAR10, {"train": True}, {"train": False}, files, CIFAR10.url)
    return _whole(wanted, root, size, False, download)


def celeba(root: str | None = None, size: int = 64, label: str | None = None, download: bool = True) -> Dataset:
    """162 770 training and 19 962 held-out faces (3, size, size): aligned, cropped to 178x178, then resized.

    `label` is one of the 40 attributes, such as Smiling: class 1 has it, class 0 has not. Else as `mnist`, in the
    folder celeba. At 64x64 the halves take 9 GB: `saddle data import` makes them a Parquet set, which is streamed.
    """
    return celeba_files(root, size, label, download).load()


def celeba_files(root: str | None = None, size: int = 64, label: str | None = None, download: bool = True) -> FileSet:
    """The same, without reading an image."""
    from torchvision.datasets import CelebA

    files = {f"{CelebA.base_folder}/{name}": md5 for _, md5, name in CelebA.file_list}
    wanted = _Wanted("celeba", CelebA, {"split": "train"}, {"split": "test"}, files, "Google Drive")
    train, heldout = _open(wanted, root, download)
    names = [name for name in train.attr_names if name]
    if label is not None and label not in names:
        raise unknown("data.label", label, names)

    def half(part: Any) -> ImageFiles:
        folder = Path(part.root) / CelebA.base_folder / "img_align_celeba"
        labels = None if label is None else part.attr[:, names.index(label)].contiguous()
        return ImageFiles([folder / name for name in part.filename], labels, size, 3)  # the square part is 178x178

    classes = None if label is None else (f"not {label}", label)
    return FileSet("celeba", half(train), half(heldout), classes)


@dataclass(frozen=True)
class _Wanted:
    """One of torchvision's sets, and how it comes."""

    name: str
    kind: Any  # the class
    train: dict[str, object]  # what it is called with
    heldout: dict[str, object]
    files: Mapping[str, str]  # what is downloaded: path below the root, md5
    source: str

    def open(self, root: Path) -> tuple[Any, Any]:
        return self.kind(root, **self.train), self.kind(root, **self.heldout)


def _grey(name: str, kind: Any, root: str | None, size: int | None, binary: bool, download: bool) -> Dataset:
    files = {f"{kind.__name__}/raw/{file}": md5 for file, md5 in kind.resources}
    wanted = _Wanted(name, kind, {"train": True}, {"train": False}, files, " and ".join(kind.mirrors))
    return _whole(wanted, root, size, binary, download)


def _whole(wanted: _Wanted, root: str | None, size: int | None, binary: bool, download: bool) -> Dataset:
    require(size is None or size >= 1, "size", size, "at least 1")
    train, heldout = _open(wanted, root, download)

    def half(part: Any) -> Tensor:
        levels = np.asarray(part.data)
        levels = levels[..., None] if levels.ndim == 3 else levels  # (N, H, W, C)
        pixels = to_pixels(torch.from_numpy(levels if size is None else _resized(levels, size)).permute(0, 3, 1, 2))
        return (two_toned(pixels) if binary else pixels).contiguous()

    return Dataset.build(
        wanted.name,
        "image",
        half(train),
        half(heldout),
        train_labels=torch.as_tensor(train.targets),
        heldout_labels=torch.as_tensor(heldout.targets),
        classes=10,
    )


def _resized(levels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(N, H, W, C) to (N, size, size, C), bicubic."""
    images = (Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in levels)
    small = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in images])
    return small.reshape(len(levels), size, size, -1)


def _open(wanted: _Wanted, root: str | None, download: bool) -> tuple[Any, Any]:
    """Both halves as torchvision gives them."""
    folder = Path(root).expanduser() if root else cache_folder() / "datasets"
    try:
        return wanted.open(folder)
    except Exception as error:  # not there, or not whole: RuntimeError, AssertionError, ValueError ...
        if not download:
            by_hand = f"put {', '.join(wanted.files)} there, or let it be downloaded"
            raise UserError(
                f"data.root: {str(folder)!r} does not hold {wanted.name} whole ({_reason(error)}); {by_hand}"
            ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{wanted.name}-", dir=folder) as name:
            staging = Path(name)
            for file, md5 in wanted.files.items():
                _lend(folder / file, staging / file, md5)
            wanted.kind(staging, download=True, **wanted.train)
            wanted.open(staging)
            _merge(staging, folder)
        return wanted.open(folder)
    except Exception as error:
        raise SaddleError(
            f"data.name: {wanted.name!r} cannot be downloaded from {wanted.source} to {str(folder)!r}: "
            f"{_reason(error)}; {', '.join(wanted.files)} can also be put there by hand"
        ) from error


def _lend(file: Path, other: Path, md5: str) -> None:
    """A file that lies in its place already, and is right, is then in the other place too."""
    from torchvision.datasets.utils import check_integrity

    if check_integrity(file, md5):
        other.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, other)
        except OSError:  # a file system without links
            shutil.copy2(file, other)


def _merge(source: Path, target: Path) -> None:
    """Moves `source` to `target`; where both are folders, what they hold."""
    if source.is_dir() and target.is_dir():
        for inside in list(source.iterdir()):
            _merge(inside, target / inside.name)
    else:
        os.replace(source, target)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

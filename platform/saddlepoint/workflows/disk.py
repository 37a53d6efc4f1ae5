"""A budget for disk: live trials keep what they need to go on, the best few their generators, and a cap holds.

    trials/0007/                checkpoint and generator of a live trial; the generator alone of a kept one
    trials/.gone-0007-.../      on its way out: renamed first, so that no crash leaves half a generator behind

What is deleted can be made again: a trial that ended stands whole in the ledger.
"""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from ..errors import SaddleError
from ..training.state import CHECKPOINT

GONE = ".gone-"


def size(folder: Path) -> int:
    """Bytes of all files in it; files that vanish while it counts do not count."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over what is not there any more
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def remove(folder: Path) -> None:
    """The whole folder, in one step as far as anyone else can see."""
    if folder.exists():
        gone = folder.with_name(f"{GONE}{folder.name}-{uuid.uuid4().hex[:8]}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep_up(parent: Path) -> int:
    """Removes what a crash left of `remove`; gives how many folders."""
    left = list(parent.glob(f"{GONE}*"))
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return len(left)


class Disk:
    """The folders of a sweep's trials, under a cap.

    Args:
        parent: holds one folder for each trial, named by its number.
        cap: bytes of all of them together; None: no cap.
        need: bytes that one live trial takes at most, as far as is known beforehand.
    """

    def __init__(self, parent: Path, cap: float | None, need: int) -> None:
        self.parent, self.cap, self.need = parent, cap, need
        sweep_up(parent)
        for half in [path for path in parent.rglob(".*") if path.is_file()]:  # of a file that was being replaced
            half.unlink(missing_ok=True)

    def folder(self, number: int) -> Path:
        return self.parent / f"{number:04d}"

    def end(self, number: int, *, complete: bool) -> None:
        """A trial has ended: nothing of it needs to go on, and only a complete one has a generator to keep."""
        if not complete:
            remove(self.folder(number))
        for checkpoint in self.folder(number).rglob(CHECKPOINT):
            checkpoint.unlink(missing_ok=True)

    def keep(self, best: list[int], live: set[int]) -> None:
        """Of all trials that are not live, only these keep their folders."""
        wanted = {self.folder(number).name for number in (*best, *live)}
        for folder in self.parent.glob("[0-9]*"):
            if folder.name not in wanted:
                remove(folder)

    def room(self, best: list[int], live: set[int]) -> bool:
        """Whether one more trial fits beside the live ones, if need be at the price of kept generators, the worst
        first (best: in the order of their worth). False: it must wait for a live one to end.

        Raises SaddleError if it would not even fit alone.
        """
        if self.cap is None:
            return True
        kept = [number for number in best if self.folder(number).exists()]
        # A live trial counts with what it will take, and its files therefore not.
        used = sum(size(self.folder(number)) for number in kept) + self.need * len(live)
        while used + self.need > self.cap and kept:
            number = kept.pop()
            used -= size(self.folder(number))
            remove(self.folder(number))
        if used + self.need <= self.cap:
            return True
        if live:
            return False
        raise SaddleError(
            f"search.disk_gb: {self.cap / 1e9:g} GB do not hold one trial, which takes up to {self.need / 1e9:.2g} GB "
            "with its checkpoint, the next one while it is written, and its generator; give it more"
        )

"""A budget for disk: live trials keep what they need to go on, the best few their generators, and a cap holds.

    trials/0007/                checkpoint and generator of a live trial; the generator alone of a kept one
    trials/.gone-0007-.../      on its way out: renamed first, so that no crash leaves half a generator behind

Object storage cannot rename. There the card of a generator goes first, without which nothing loads it, and a folder
with weights or rests but no card is by that on its way out.

What is deleted can be made again: a trial that ended stands whole in the ledger.
"""

import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath

from ..errors import SaddleError
from ..generator import CARD, WEIGHTS
from ..remote import Place, Remote
from ..training.state import CHECKPOINT

GONE = ".gone-"


def size(folder: Place) -> int:
    """Bytes of all files in it; files that vanish while it counts do not count."""
    if isinstance(folder, Remote):
        return sum(folder.files().values())
    total = 0
    for place, _, names in os.walk(folder):  # which passes over what is not there any more
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def remove(folder: Place) -> None:
    """The whole folder: on a disk in one step as far as anyone else can see, else as the head of this file says."""
    if isinstance(folder, Remote):
        for card in folder.rglob(CARD):
            card.unlink(missing_ok=True)
        folder.remove()
    elif folder.exists():
        gone = folder.with_name(f"{GONE}{folder.name}-{uuid.uuid4().hex[:8]}")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep_up(parent: Place) -> int:
    """Removes what a crash left of `remove`; gives how many folders."""
    if isinstance(parent, Remote):
        return _sweep_up(parent)
    left = list(parent.glob(f"{GONE}*"))
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return len(left)


def _sweep_up(parent: Remote) -> int:
    """Two looks at all that lies there, however much it is."""
    inside: dict[Remote, list[PurePosixPath]] = {folder: [] for folder in parent.glob("[0-9]*")}
    for file in parent.files():
        way = PurePosixPath(file.path).relative_to(parent.path)
        if (folder := parent / way.parts[0]) in inside:
            inside[folder].append(way)
    left = [folder for folder, files in inside.items() if _is_rest(files)]
    for folder in left:
        folder.remove()
    return len(left)


def _is_rest(files: Iterable[PurePosixPath]) -> bool:
    """Whether these are what is left of a generator that was being removed: all cards in it are deleted before anything
    else, and written before their weights. What has a checkpoint is a trial's, of which the ledger knows whether it
    lives."""
    files = set(files)
    if any(file.name == CHECKPOINT for file in files):
        return False
    cards = {file.parent for file in files if file.name == CARD}
    return not cards or any(file.name == WEIGHTS and file.parent not in cards for file in files)


def halves(parent: Place) -> list[Place]:
    """Files that were being written when their process died."""
    if isinstance(parent, Remote):
        return [*parent.rglob(".*")]
    return [path for path in parent.rglob(".*") if path.is_file()]


def checkpoints(folder: Place) -> list[Place]:
    """All that are in it, however deep."""
    return [*folder.rglob(CHECKPOINT)]


def trials_in(parent: Place) -> list[Place]:
    """The folders that are there."""
    return [*parent.glob("[0-9]*")]


class Disk:
    """The folders of a sweep's trials, under a cap.

    Args:
        parent: holds one folder for each trial, named by its number.
        cap: bytes of all of them together; None: no cap.
        need: bytes that one live trial takes at most, as far as is known beforehand.
    """

    def __init__(self, parent: Place, cap: float | None, need: int) -> None:
        self.parent, self.cap, self.need = parent, cap, need
        sweep_up(parent)
        for half in halves(parent):
            half.unlink(missing_ok=True)

    def folder(self, number: int) -> Place:
        return self.parent / f"{number:04d}"

    def there(self) -> set[int]:
        """The trials of which anything is left."""
        return {int(folder.name) for folder in trials_in(self.parent)}

    def end(self, number: int, *, complete: bool) -> None:
        """A trial has ended: nothing of it needs to go on, and only a complete one has a generator to keep."""
        if not complete:
            remove(self.folder(number))
        for checkpoint in checkpoints(self.folder(number)):
            checkpoint.unlink(missing_ok=True)

    def keep(self, best: list[int], live: set[int]) -> None:
        """Of all trials that are not live, only these keep their folders."""
        wanted = {self.folder(number).name for number in (*best, *live)}
        for folder in trials_in(self.parent):
            if folder.name not in wanted:
                remove(folder)

    def room(self, best: list[int], live: set[int]) -> bool:
        """Whether one more trial fits beside the live ones, if need be at the price of kept generators, the worst
        first (best: in the order of their worth). False: it must wait for a live one to end.

        Raises SaddleError if it would not even fit alone.
        """
        if self.cap is None:
            return True
        kept = {number: size(self.folder(number)) for number in best}
        # A live trial counts with what it will take, and its files therefore not.
        used = sum(kept.values()) + self.need * len(live)
        while used + self.need > self.cap and kept:
            number, freed = kept.popitem()  # the worst
            used -= freed
            remove(self.folder(number))
        if used + self.need <= self.cap:
            return True
        if live:
            return False
        raise SaddleError(
            f"search.disk_gb: {self.cap / 1e9:g} GB do not hold one trial, which takes up to {self.need / 1e9:.2g} GB "
            "with its checkpoint, the next one while it is written, and its generator; give it more"
        )

"""A sweep's place on disk. One sweep = one study = one parent run = one folder, in the working folder or where
SADDLE_STORAGE names another. Only the driver works in it; what workers write may lie apart from it.

sweeps/NAME/pipeline.yaml   the resolved pipeline
            ledger.db       the study (unless search.ledger names a database)
            tracking/       what the tracking store is told, and how much of it has arrived
            checkpoints.txt     where trials/ and confirm/ lie, if not here: below SADDLE_CHECKPOINTS as it was when
                                the sweep began, maybe in a bucket that every node of a cluster reaches
            trials/0007/    a trial's checkpoint and its best generator
            confirm/0002/   the same for a retraining on a fresh seed, and what its evaluation draws scored
            confirmation.json   the evidence
            report.html     what happened, to look at
            sweep.log       what Ray and the tracking had to say
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SaddleError, UserError, unknown
from ..files import write_text
from ..remote import Place, Remote, place
from ..spec import Pipeline

ROOT = "sweeps"
STORAGE = "SADDLE_STORAGE"
CHECKPOINTS = "SADDLE_CHECKPOINTS"
NOTE = "checkpoints.txt"


def home() -> Path:
    """Where the sweeps lie. Raises UserError if SADDLE_STORAGE names no folder: made here, it might be lost, or others
    would not see it."""
    storage = os.environ.get(STORAGE)
    if not storage:
        return Path(ROOT)
    if not Path(storage).is_dir():
        raise UserError(
            f"{STORAGE}: {storage!r} should be a folder that every node of the cluster sees, or with {CHECKPOINTS} "
            "one that the head sees"
        )
    return Path(storage) / ROOT


def apart(name: str) -> Place | None:
    """A place of its own for what is trained under this name, below SADDLE_CHECKPOINTS; None if that is not set.

    Two who give one name to two things share no place. Raises UserError if nothing can be written there.
    """
    given = os.environ.get(CHECKPOINTS)
    if not given:
        return None
    parent = place(given, CHECKPOINTS)
    if isinstance(parent, Remote):
        parent.check(CHECKPOINTS)
    elif not parent.is_dir():
        raise UserError(f"{CHECKPOINTS}: {given!r} should be a URI, s3://BUCKET/PREFIX, or a folder that is there")
    else:
        parent = parent.absolute()
    return parent / f"{name}-{secrets.token_hex(3)}"


def settle(folder: Path, elsewhere: Place | None) -> None:
    """Writes down, before anything begins, where that lies which workers write."""
    (folder / NOTE).unlink(missing_ok=True)  # of a command that was killed right here
    if elsewhere is not None:
        write_text(folder / NOTE, f"{elsewhere}\n")
    if isinstance(elsewhere, Path):
        elsewhere.mkdir()


def located(folder: Path) -> Place:
    """Where that lies which workers write: in the folder, or where `settle` has put it."""
    try:
        return place((folder / NOTE).read_text().strip())
    except FileNotFoundError:
        return folder


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.name
        self.pipeline_file = self.path / "pipeline.yaml"
        self.tracking = self.path / "tracking"
        self.log = self.path / "sweep.log"

    @classmethod
    def of(cls, pipeline: Pipeline, root: Path | None = None) -> "Folder":
        return cls((root or home()) / pipeline.name)

    @classmethod
    def existing(cls, name: str, root: Path | None = None) -> "Folder":
        """The folder of a sweep that was begun before. Raises UserError, with the nearest name, if there is none."""
        root = root or home()
        known = {path.parent.name: path.parent for path in root.glob("*/pipeline.yaml")}
        if name not in known:
            raise unknown("sweep", name, known)
        return cls(known[name])

    @property
    def place(self) -> Place:
        """What the workers write lies there."""
        return located(self.path)

    def apart(self) -> Place | None:
        """Where the trials shall lie, if this sweep is yet to begin and that is not here; see `apart`."""
        return None if self.pipeline_file.exists() else apart(self.name)

    def trials(self, kind: str) -> Place:
        return self.place / {"trial": "trials", "confirm": "confirm"}[kind]

    def trial(self, kind: str, number: int) -> Place:
        return self.trials(kind) / f"{number:04d}"

    def ledger_url(self, pipeline: Pipeline) -> str:
        given = pipeline.search and pipeline.search.ledger
        return given or f"sqlite:///{self.path / 'ledger.db'}"

    def pipeline(self) -> Pipeline:
        return Pipeline.load(self.pipeline_file)

    def begin(self, pipeline: Pipeline, *, extend: bool = False, elsewhere: Place | None = None) -> None:
        """Writes the pipeline down. Raises UserError if the folder holds a sweep of another one.

        extend: the search space and the number of rounds may be others than there. elsewhere: the trials' place; of a
        sweep that has begun it stays what it is.
        """
        if self.pipeline_file.exists():
            before = self.pipeline()
            if before.fingerprint(extend=extend) != pipeline.fingerprint(extend=extend):
                raise UserError(
                    f"name: the sweep {self.name!r} was begun with another pipeline "
                    f"({_difference(before, pipeline, extend)}); give this one a name of its own: "
                    f"--set name={self.name}-2"
                )
        if not self.pipeline_file.exists():
            settle(self.path, elsewhere)
        write_text(self.pipeline_file, pipeline.yaml())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held by the one command that works on this sweep; the system lets go of it when that process ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SaddleError(
                    f"another command is working on the sweep {self.name!r}; wait for it, or stop it"
                ) from error
            yield


def _difference(before: Pipeline, now: Pipeline, extend: bool) -> str:
    old, new = before.flat(), now.flat()
    for key in [*new, *old]:
        if old.get(key) != new.get(key) and not (extend and _extends(key)):
            return f"{key}: {old.get(key)!r} there, {new.get(key)!r} here"
    return "the same values, in another order"


def _extends(key: str) -> bool:
    return key.startswith("search.space.") or key == "training.rounds"

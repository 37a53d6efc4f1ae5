"""A sweep's place on disk. One sweep = one study = one parent run = one folder, in the working folder or, where
SADDLE_STORAGE names one, in a folder that every node of a cluster sees.

sweeps/NAME/pipeline.yaml   the resolved pipeline
            ledger.db       the study (unless search.ledger names a database)
            tracking/       what the tracking store is told, and how much of it has arrived
            trials/0007/    a trial's checkpoint and its best generator
            confirm/0002/   the same for a retraining on a fresh seed, and what its evaluation draws scored
            confirmation.json   the evidence
            report.html     what happened, to look at
            sweep.log       what Ray and the tracking had to say
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SaddleError, UserError, unknown
from ..files import write_text
from ..spec import Pipeline

ROOT = "sweeps"
STORAGE = "SADDLE_STORAGE"


def home() -> Path:
    """Where the sweeps lie. Raises UserError if SADDLE_STORAGE names no folder: made here, others would not see it."""
    storage = os.environ.get(STORAGE)
    if not storage:
        return Path(ROOT)
    if not Path(storage).is_dir():
        raise UserError(f"{STORAGE}: {storage!r} should be a folder that every node of the cluster sees")
    return Path(storage) / ROOT


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

    def trials(self, kind: str) -> Path:
        return self.path / {"trial": "trials", "confirm": "confirm"}[kind]

    def trial(self, kind: str, number: int) -> Path:
        return self.trials(kind) / f"{number:04d}"

    def ledger_url(self, pipeline: Pipeline) -> str:
        given = pipeline.search and pipeline.search.ledger
        return given or f"sqlite:///{self.path / 'ledger.db'}"

    def pipeline(self) -> Pipeline:
        return Pipeline.load(self.pipeline_file)

    def begin(self, pipeline: Pipeline, *, extend: bool = False) -> None:
        """Writes the pipeline down. Raises UserError if the folder holds a sweep of another one.

        extend: the search space and the number of rounds may be others than there.
        """
        if self.pipeline_file.exists():
            before = self.pipeline()
            if before.fingerprint(extend=extend) != pipeline.fingerprint(extend=extend):
                raise UserError(
                    f"name: the sweep {self.name!r} was begun with another pipeline "
                    f"({_difference(before, pipeline, extend)}); give this one a name of its own: "
                    f"--set name={self.name}-2"
                )
        self.path.mkdir(parents=True, exist_ok=True)
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

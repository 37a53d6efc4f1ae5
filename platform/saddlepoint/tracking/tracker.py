"""The face of tracking for a running sweep. Every call appends to the spool and returns at once.

A run is named by a key of one's own ("sweep", "trial-0007") that stays the same over crashes and resumes. A
trial that resumes repeats rounds that it has reported before: what is known already is dropped, so a history
in MLflow has neither a hole nor a double point.
"""

import math
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Literal, Self

from ..errors import SaddleError, UserError
from ..files import write_bytes, write_text
from .delivery import Delivery
from .sender import Sender
from .spool import Event, Spool
from .store import connect, database, experiment_id, explained, redacted, resolve

Status = Literal["FINISHED", "KILLED", "FAILED"]
IN_TROUBLE = 5.0  # seconds that a command waits at its end for a store that does not answer


@dataclass
class _Run:
    status: str = "RUNNING"
    last: dict[str, int] = field(default_factory=dict)  # metric -> its last step
    pictures: dict[str, int] = field(default_factory=dict)


class Tracker:
    """One sweep's way into MLflow. `folder` belongs to it, and outlives it: a new Tracker on it goes on.

    Args:
        tracking_uri: None: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db of the working folder. On another
            server than before, the whole history is told again there.
        sweep: what tells its runs from all others on the server; None: the folder's name with a random
            part, kept in the folder.

    Raises:
        UserError: a tracking URI that no one can open, a folder or local database that cannot be written, an
            experiment that was deleted. A remote server that does not answer is none: the spool waits for it.
        SaddleError: the folder is in use by another process, or belongs to another sweep.
    """

    def __init__(self, folder: Path, *, tracking_uri: str | None, experiment: str, sweep: str | None = None) -> None:
        self.uri = resolve(tracking_uri)
        if database(self.uri) is not None:
            with explained(self.uri):
                experiment_id(connect(self.uri), self.uri, experiment)
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}
        try:
            self._spool = Spool(folder)
            try:
                self._restore(folder, experiment, sweep)
            except BaseException:
                self._spool.close()
                raise
        except OSError as error:
            raise UserError(f"tracking folder {folder}: {error.strerror}") from error
        self._sender = Sender(self._spool, self._delivery)
        self._sender.start()

    def start_run(
        self,
        key: str,
        *,
        name: str,
        parent: str | None = None,
        params: Mapping[str, object],
        tags: Mapping[str, str],
    ) -> None:
        """Makes the run, or, if it is there, sets it running again and adds what is new."""
        if parent is not None:
            self._known(parent)
        values = {name: str(value) for name, value in params.items()}
        self._append("start", key, name=name, parent=parent, params=values, tags=dict(tags))

    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """One point for each metric; a metric that has a point at this step or later keeps what it has."""
        last = self._known(key).last
        new = {name: _number(value) for name, value in metrics.items() if step > last.get(name, -1)}
        if new:
            self._append("log", key, step=int(step), metrics=new)

    def fill(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Points that the history lacks, also in its midst: for a repair, which has looked."""
        self._known(key)
        self._append("log", key, step=int(step), metrics={name: _number(value) for name, value in metrics.items()})

    def picture(self, key: str, name: str, step: int, png: bytes) -> None:
        """For the UI's image grid, which lays pictures of one name and step side by side over runs."""
        if step > self._known(key).pictures.get(name, -1):
            self._append("picture", key, name=name, step=int(step), blob=self._keep("picture.png", png))

    def artifact(self, key: str, path: str, content: bytes | str) -> None:
        """A file among the run's artifacts, at a relative path; the last content of a path stays."""
        self._known(key)
        place = PurePosixPath(path)
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise ValueError(f"artifact path {path!r} is not a relative path of a file")
        blob = self._keep(place.name, content.encode() if isinstance(content, str) else content)
        self._append("artifact", key, path=str(place), blob=blob)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        self._known(key)
        self._append("tag", key, tags=dict(tags))

    def finish(self, key: str, status: Status) -> None:
        self._known(key)
        self._append("finish", key, status=status)

    def run_id(self, key: str) -> str | None:
        """MLflow's id of the run; None while the server has not heard of it."""
        return self._delivery.run_ids.get(key)

    def last_step(self, key: str) -> int:
        """The last step logged for that run; -1 if there is none."""
        run = self._runs.get(key)
        return max(run.last.values(), default=-1) if run else -1

    def knows(self, key: str) -> bool:
        """Whether the run was ever started."""
        return key in self._runs

    def unfinished(self) -> list[str]:
        """Keys of the runs that were started and not finished since, in the order of their start."""
        return [key for key, run in self._runs.items() if run.status == "RUNNING"]

    @property
    def trouble(self) -> str | None:
        """Why nothing arrives at present; None when all is well."""
        return self._sender.trouble

    def drain(self, timeout: float | None) -> bool:
        """Waits at most `timeout` seconds for all so far to arrive; False if something is still pending."""
        return self._sender.drain(timeout)

    def close(self, timeout: float | None = 30.0) -> bool:
        """Drains, then stops. What has not arrived stays in the folder for the next Tracker on it, as is then said in a
        line on stderr. A store in trouble is waited for five seconds at most."""
        if self.trouble is not None:
            timeout = min(timeout or IN_TROUBLE, IN_TROUBLE)
        done = self.drain(timeout)
        if not done:
            why = f": {self.trouble[:200]}" if self.trouble else ""
            print(
                f"saddle: tracking waits in {self._spool.path.parent} for {redacted(self.uri)}, and nothing is lost: "
                f"the same command sends it, or `saddle reconcile`{why}",
                file=sys.stderr,
            )
        self._sender.stop(timeout=1.0)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(timeout=30.0 if kind is None else 5.0)

    def _restore(self, folder: Path, experiment: str, sweep: str | None) -> None:
        self.sweep = _identity(folder, sweep)
        self._delivery = Delivery(folder, self.uri, experiment, self.sweep)
        if self._delivery.moved and self._spool.sent:
            self._spool.advance(0)
        self.inherited = sum(1 for _ in self._spool.events(self._spool.sent))  # events that had not arrived before
        for event in self._spool.events():
            self._apply(event)
        self._clean(folder)

    def _known(self, key: str) -> _Run:
        if key not in self._runs:
            raise ValueError(f"run {key!r} was never started")
        return self._runs[key]

    def _append(self, kind: str, key: str, **content: object) -> None:
        event: Event = {"kind": kind, "run": key, "time": time.time_ns() // 1_000_000, **content}
        with self._lock:
            try:
                self._spool.append(event)
            except OSError as error:
                raise SaddleError(f"tracking cannot write {self._spool.path}: {error.strerror}") from error
            self._apply(event)

    def _apply(self, event: Event) -> None:
        """What this process must know of the history."""
        run = self._runs.setdefault(event["run"], _Run())
        match event["kind"]:
            case "start":
                run.status = "RUNNING"
            case "finish":
                run.status = event["status"]
            case "log":
                for name in event["metrics"]:
                    run.last[name] = max(event["step"], run.last.get(name, -1))
            case "picture":
                run.pictures[event["name"]] = event["step"]

    def _keep(self, name: str, content: bytes) -> str:
        """The content goes to the disk before the event that speaks of it."""
        blob = uuid.uuid4().hex
        try:
            write_bytes(self._delivery.outbox / blob / name, content)
        except OSError as error:
            raise SaddleError(f"tracking cannot write {self._delivery.outbox}: {error.strerror}") from error
        return blob

    def _clean(self, folder: Path) -> None:
        """Removes what a crash left: files that have arrived, of which no event speaks, or half written."""
        waiting = {event.get("blob") for event in self._spool.events(self._spool.sent)}
        for blob in self._delivery.outbox.glob("*"):
            if blob.name not in waiting:
                shutil.rmtree(blob, ignore_errors=True)
        for name in ("spool.sent", "runs.json", "sweep.id"):
            for half in folder.glob(f".{name}.*"):
                half.unlink()


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity; their names do."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _identity(folder: Path, sweep: str | None) -> str:
    """The sweep's id, fixed in the folder at its first use."""
    record = folder / "sweep.id"
    if record.exists():
        recorded = record.read_text()
        if sweep not in (None, recorded):
            raise SaddleError(f"{folder} holds the tracking of sweep {recorded!r}, not of {sweep!r}")
        return recorded
    chosen = sweep or f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', folder.resolve().name)}-{uuid.uuid4().hex[:8]}"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", chosen):
        raise UserError(f"sweep: {chosen!r} may hold only letters, digits, dots, dashes and underscores")
    write_text(record, chosen)
    return chosen

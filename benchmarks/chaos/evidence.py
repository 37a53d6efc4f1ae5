"""All that a sweep has left, as plain data: what must be equal whether or not anything was killed.

Left out is what tells of clocks and of the kills themselves: times, ids, `seconds`, the count of lost workers
and the rounds at which their trials went on. Numbers are compared as they stand in the databases, bit for bit.
"""

import fcntl
import hashlib
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saddlepoint.search.records import TrialRecord
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.sweep import open_ledger

UNEQUAL_TAGS = {"saddle.sweep", "saddle.lost", "saddle.went_on", "mlflow.parentRunId", "mlflow.user", "mlflow.runName"}
UNEQUAL_METRICS = {"seconds"}
UNEQUAL_NOTES = {"seconds", "lost", "went_on"}
UNEQUAL_FILES = {"report.html"}  # a page full of hours and dates: it must be there, once
HALF = re.compile(r"^\.gone-|^\..+\.[a-z0-9_]{8}$|\.tmp$")  # what `files.replacing` and `disk.remove` have begun


@dataclass
class Evidence:
    trials: dict[str, Any]
    runs: dict[str, Any]  # by key: status, parent, parameters, tags
    points: "Counter[tuple[str, str, int, str]]"  # run, metric, step, value
    files: "Counter[tuple[str, str, str]]"  # run, path, SHA-256
    running: list[str]
    kept: list[str]  # the files of the trials


def gather(place: Path, sweep: str, store: Path | None = None) -> Evidence:
    """Of the sweep in place/sweeps and all runs of place/mlflow.db; or of its own runs in a `store` of several."""
    folder = Folder(place / "sweeps" / sweep)
    trials = {
        f"trial-{record.number:04d}": _trial(record) for record in open_ledger(folder.pipeline(), folder).trials()
    }
    runs, points, files, running = _mlflow(
        store or place / "mlflow.db", (folder.tracking / "sweep.id").read_text() if store else None
    )
    kept = sorted(str(path.relative_to(folder.path)) for path in folder.trials("trial").rglob("*") if path.is_file())
    return Evidence(trials, runs, points, files, running, kept)


def _trial(record: TrialRecord) -> dict[str, Any]:
    return {
        "values": record.values,
        "seed": record.seed,
        "state": record.state,
        "reason": record.reason,
        "scores": _exact(record.scores),
        "curves": {name: _exact(curve) for name, curve in record.curves.items()},
        "notes": {name: value for name, value in record.attrs.items() if name not in UNEQUAL_NOTES},
    }


def _exact(values: dict[Any, float]) -> dict[Any, str]:
    return {key: value.hex() for key, value in values.items()}


def _mlflow(path: Path, sweep: str | None) -> tuple[dict[str, Any], Counter[Any], Counter[Any], list[str]]:
    database = sqlite3.connect(path)
    ask = database.execute
    alive = "SELECT run_uuid, status, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
    found = {run: (status, place) for run, status, place in ask(alive)}
    tags: dict[str, dict[str, str]] = {run: {} for run in found}
    for run, name, value in ask("SELECT run_uuid, key, value FROM tags"):
        if run in found:
            tags[run][name] = value
    found = {run: what for run, what in found.items() if sweep in (None, tags[run].get("saddle.sweep"))}
    keys = {run: tags[run]["saddle.key"] for run in found}
    doubled = {key for key, times in Counter(keys.values()).items() if times > 1}
    keys = {run: f"{key} ({run})" if key in doubled else key for run, key in keys.items()}
    runs: dict[str, Any] = {
        keys[run]: {
            "status": status,
            "parent": keys.get(tags[run].get("mlflow.parentRunId", "")),
            "tags": {name: value for name, value in tags[run].items() if name not in UNEQUAL_TAGS},
            "params": dict(ask("SELECT key, value FROM params WHERE run_uuid = ?", (run,)).fetchall()),
        }
        for run, (status, _) in found.items()
    }
    points = Counter(
        (keys[run], name, step, "nan" if nan else float(value).hex())
        for run, name, step, value, nan in ask("SELECT run_uuid, key, step, value, is_nan FROM metrics")
        if run in found and name not in UNEQUAL_METRICS
    )
    files = Counter(
        (keys[run], re.sub(r"\+timestamp\+\d+\+[0-9a-f-]{36}", "", str(path.relative_to(root))), _hash(path))
        for run, (_, place) in found.items()
        for root in (Path(place.removeprefix("file://")),)
        for path in root.rglob("*")
        if path.is_file()
    )
    database.close()
    return runs, points, files, sorted(keys[run] for run, (status, _) in found.items() if status == "RUNNING")


def _hash(path: Path) -> str:
    if path.name in UNEQUAL_FILES:
        return "not compared"
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Losses:
    """What differs from a sweep in which nothing was killed."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # processes, locks, half files

    def __bool__(self) -> bool:
        return any((self.lost, self.doubled, self.running, self.other, self.left))

    def __iadd__(self, more: "Losses") -> "Losses":
        for name, found in vars(more).items():
            getattr(self, name).extend(found)
        return self

    def __str__(self) -> str:
        line = f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.running)} left RUNNING"
        line += f"; {len(self.other)} other differences, {len(self.left)} left behind"
        return "\n".join([line, *(f"  {name}: {each}" for name, found in vars(self).items() for each in found)])


def compare(seen: Evidence, wanted: Evidence) -> Losses:
    losses = Losses(running=seen.running)
    for kind in ("points", "files"):
        there, should = getattr(seen, kind), getattr(wanted, kind)
        losses.lost += [" ".join(map(str, entry)) for entry in (should - there).elements()]
        losses.doubled += [" ".join(map(str, entry)) for entry in (there - should).elements()]
    for kind in ("trials", "runs"):
        there, should = getattr(seen, kind), getattr(wanted, kind)
        losses.lost += [f"{kind}: {key}" for key in should if key not in there]
        losses.doubled += [f"{kind}: {key}" for key in there if key not in should]
        for key in should.keys() & there.keys():
            losses.other += [
                f"{key}.{name}: {there[key][name]!r} instead of {value!r}"
                for name, value in should[key].items()
                if there[key][name] != value
            ]
    losses.other += [f"file {name} instead of none" for name in seen.kept if name not in wanted.kept]
    losses.other += [f"no file {name}" for name in wanted.kept if name not in seen.kept]
    return losses


def leftovers(folder: Path) -> list[str]:
    """Half files, half removed folders, and a lock that is still held, in a sweep's folder."""
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if HALF.search(path.name)]
    with open(folder / "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left.append("lock is still held")
    return left

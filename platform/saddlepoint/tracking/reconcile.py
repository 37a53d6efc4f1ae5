"""What the tracking store really holds, beside what it was told; and runs there that nobody works on any more."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run

from .store import KEY_TAG, SWEEP_TAG, connect, database, explained, pages, resolve, search

RECONCILED = "saddle.reconciled"


@dataclass(frozen=True)
class Stored:
    """A run as the store has it."""

    status: str
    tags: dict[str, str]
    steps: dict[str, set[int]] = field(default_factory=dict)  # metric: where it has points


@dataclass(frozen=True)
class Orphan:
    """A run that is RUNNING, of no sweep that is known here. Times are milliseconds since 1970."""

    run_id: str
    name: str
    experiment: str
    alive: int  # its last sign of life


def identity(folder: Path) -> str | None:
    """What a tracking folder's runs are known by in the store; None if there are none."""
    record = folder / "sweep.id"
    return record.read_text() if record.exists() else None


def retell(folder: Path) -> None:
    """The next Tracker on this folder tells the store its whole history again, which changes nothing that is there."""
    (folder / "runs.json").unlink(missing_ok=True)


def lacking(folder: Path, stored: dict[str, Stored]) -> bool:
    """Whether the store lacks a run, or a point of the metrics that were asked for, of which the spool says that it
    has arrived: a store that came back older than it was, or a run that was removed."""
    try:
        arrived = int((folder / "spool.sent").read_text())
    except (FileNotFoundError, ValueError):
        return False  # the next Tracker tells all in any case
    refused = [line["event"] for line in _lines(folder / "spool.rejected.jsonl")]
    asked = {name for run in stored.values() for name in run.steps}
    for event in _lines(folder / "spool.jsonl", arrived):
        run = stored.get(event["run"])
        steps = run.steps if run is not None else {}
        gone = {name for name in asked & event.get("metrics", {}).keys() if event["step"] not in steps.get(name, ())}
        if (run is None or gone) and event not in refused:
            return True
    return False


def _lines(path: Path, size: int | None = None) -> Iterator[dict[str, Any]]:
    """Of a file of JSON lines, or its first `size` bytes; without those that are damaged."""
    for line in path.read_bytes()[:size].splitlines() if path.exists() else ():
        with suppress(ValueError):
            yield json.loads(line)


class Store:
    """Raises SaddleError, of one sentence, from every method, if the store does not answer."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = resolve(tracking_uri)

    @property
    def missing(self) -> bool:
        """A local database that nobody has made yet."""
        path = database(self.uri)
        return path is not None and not path.exists()

    def runs(self, sweep: str, metrics: set[str]) -> dict[str, Stored]:
        """Of one sweep, by key; with the steps of these metrics."""
        if self.missing:
            return {}
        with self._asking() as client:
            places = [each.experiment_id for each in _experiments(client)]
            found = list(search(client, places, f"tags.`{SWEEP_TAG}` = '{sweep}'"))
            return {run.data.tags[KEY_TAG]: _stored(client, run, metrics) for run in found}

    def orphans(self, known: set[str | None]) -> list[Orphan]:
        """Runs that are RUNNING, of other sweeps than these."""
        if self.missing:
            return []
        with self._asking() as client:
            names = {each.experiment_id: each.name for each in _experiments(client)}
            running = search(client, list(names), "attributes.status = 'RUNNING'")
            return [
                Orphan(run.info.run_id, run.info.run_name, names[run.info.experiment_id], _alive(client, run))
                for run in running
                if run.data.tags.get(SWEEP_TAG) not in known
            ]

    def end(self, orphan: Orphan, why: str) -> None:
        """KILLED since its last sign of life, with a tag that says why."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._asking() as client:
            client.set_tag(orphan.run_id, RECONCILED, f"{now}: {why}", synchronous=True)
            client.set_terminated(orphan.run_id, "KILLED", orphan.alive)

    @contextmanager
    def _asking(self) -> Iterator[MlflowClient]:
        client = connect(self.uri)
        with explained(self.uri):
            yield client


def _experiments(client: MlflowClient) -> Iterator[Experiment]:
    return pages(lambda token: client.search_experiments(page_token=token))


def _stored(client: MlflowClient, run: Run, metrics: set[str]) -> Stored:
    steps = {
        name: {point.step for point in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
        if name in metrics
    }
    return Stored(run.info.status, dict(run.data.tags), steps)


def _alive(client: MlflowClient, run: Run) -> int:
    histories = (client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
    signs: list[int] = [run.info.start_time, *(point.timestamp for points in histories for point in points)]
    return max(signs)

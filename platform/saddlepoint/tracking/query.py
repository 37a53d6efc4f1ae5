"""What is tracked, as plain data."""

import math
import sys
from dataclasses import dataclass

from mlflow.entities import Run

from ..errors import unknown
from .store import KEY_TAG, PARENT_TAG, SWEEP_TAG, connect, database, explained, pages, resolve, search


@dataclass(frozen=True)
class TrackedRun:
    """A run of a sweep: the parent (`parent` None) or a trial. Times are milliseconds since 1970."""

    sweep: str
    key: str
    run_id: str
    parent: str | None
    experiment: str
    name: str
    status: str  # RUNNING, FINISHED, KILLED, FAILED
    start: int
    end: int | None
    params: dict[str, str]
    metrics: dict[str, float]  # the last value of each
    tags: dict[str, str]  # without those of MLflow itself


def sweeps(tracking_uri: str | None, experiment: str | None = None) -> list[TrackedRun]:
    """The parent runs of all sweeps, the youngest first."""
    return _runs(tracking_uri, f"tags.`{SWEEP_TAG}` != '' and tags.`{PARENT_TAG}` IS NULL", experiment)


def children(tracking_uri: str | None, sweep: str) -> list[TrackedRun]:
    """The runs below a sweep's parent run, by key.

    Raises:
        UserError: no such sweep.
    """
    found = _runs(tracking_uri, f"tags.`{SWEEP_TAG}` = '{sweep.replace(chr(39), '')}'")
    if not found:
        raise unknown("sweep", sweep, [run.sweep for run in sweeps(tracking_uri)])
    return sorted((run for run in found if run.parent is not None), key=lambda run: run.key)


def history(tracking_uri: str | None, run_id: str, metric: str) -> list[tuple[int, float]]:
    """All points (step, value) of a metric in the order of their steps; [] for a metric that has none."""
    uri = resolve(tracking_uri)
    client = connect(uri)
    with explained(uri):
        points = client.get_metric_history(run_id, metric)
    return sorted((point.step, _meant(point.value)) for point in points)


def _runs(tracking_uri: str | None, query: str, experiment: str | None = None) -> list[TrackedRun]:
    uri = resolve(tracking_uri)
    if (path := database(uri)) is not None and not path.exists():
        return []
    client = connect(uri)
    with explained(uri):
        experiments = pages(lambda token: client.search_experiments(page_token=token))
        names = {each.experiment_id: each.name for each in experiments}
        if experiment is not None and experiment not in names.values():
            raise unknown("experiment", experiment, names.values())
        places = [place for place, name in names.items() if experiment in (None, name)]
        return [_plain(run, names[run.info.experiment_id]) for run in search(client, places, query)]


def _plain(run: Run, experiment: str) -> TrackedRun:
    tags = run.data.tags
    return TrackedRun(
        sweep=tags[SWEEP_TAG],
        key=tags.get(KEY_TAG, ""),
        run_id=run.info.run_id,
        parent=tags.get(PARENT_TAG),
        experiment=experiment,
        name=run.info.run_name,
        status=run.info.status,
        start=run.info.start_time,
        end=run.info.end_time if run.info.status != "RUNNING" else None,
        params=dict(run.data.params),
        metrics={name: _meant(value) for name, value in run.data.metrics.items()},
        tags={name: value for name, value in tags.items() if not name.startswith("mlflow.")},
    )


def _meant(value: float) -> float:
    """MLflow's SQL store keeps infinity as the largest double."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value

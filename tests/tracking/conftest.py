"""A store made once and copied for each test (MLflow's migrations take seconds), and a look into it."""

import io
import math
import os
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from saddlepoint.tracking.store import connect, sqlite_uri
from saddlepoint.tracking.tracker import Tracker


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    connect(sqlite_uri(path))
    return path


@pytest.fixture
def uri(empty_database, tmp_path):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return sqlite_uri(tmp_path / "mlflow.db")


def make_png(shade: int, side: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("L", (side, side), shade).save(content, "PNG")
    return content.getvalue()


def run_in_child(work: Callable[[], Any]) -> int:
    """Runs `work` in a forked process; 0, its exit code, or minus the signal that ended it.

    The parent must not have opened the store before: connections do not survive a fork.
    """
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def look_into(uri: str, experiment: str = "digits") -> dict[str, dict[str, Any]]:
    """All MLflow holds of an experiment, by `saddle.key`, without ids and times. Fails on a double run."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    keys = {run.info.run_id: run.data.tags["saddle.key"] for run in runs}
    assert len(set(keys.values())) == len(runs), f"doubled runs: {sorted(keys.values())}"
    seen = {}
    for run in runs:
        run_id, tags = run.info.run_id, dict(run.data.tags)
        parent = tags.pop("mlflow.parentRunId", None)
        for volatile in ("saddle.sweep", "saddle.key", "mlflow.user", "mlflow.source.name"):
            tags.pop(volatile, None)
        seen[keys[run_id]] = {
            "status": run.info.status,
            "parent": keys.get(parent),
            "params": dict(run.data.params),
            "tags": tags,
            "history": {
                metric: sorted((p.step, repr(p.value)) for p in client.get_metric_history(run_id, metric))
                for metric in run.data.metrics
            },
            "files": {
                re.sub(r"\+timestamp\+\d+\+[0-9a-f-]{36}", "", path): (place(client, run_id) / path).read_bytes()
                for path in list_files(client, run_id)
            },
            "file_count": len(list_files(client, run_id)),
        }
    return seen


def place(client: MlflowClient, run_id: str) -> Path:
    return Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))


def list_files(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found = []
    for info in client.list_artifacts(run_id, folder):
        found += list_files(client, run_id, info.path) if info.is_dir else [info.path]
    return sorted(found)


def tell_small_sweep(tracker: Tracker) -> None:
    tracker.start_run("sweep", name="digits-wgan", params={"trials": 2}, tags={"game": "wgan"})
    tracker.artifact("sweep", "spec/pipeline.yaml", "game: wgan\n")
    for key in ("trial-0000", "trial-0001"):
        tracker.start_run(key, name=key, parent="sweep", params={"lr": 1e-4, "n_critic": 5}, tags={})
        for step in (10, 20, 30):
            tracker.log(key, step, {"fid": 100 / step, "loss": math.nan if step == 20 else -step})
        tracker.picture(key, "samples", 20, make_png(99))
        tracker.tag(key, {"stopped": "pruned"})
        tracker.finish(key, "KILLED")
    tracker.finish("sweep", "FINISHED")


@pytest.fixture
def png():
    return make_png


@pytest.fixture
def look():
    return look_into


@pytest.fixture
def small_sweep():
    return tell_small_sweep


@pytest.fixture
def in_child():
    return run_in_child

"""kill -9 of the whole process group of `saddle run`, on real Ray: the same command goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.search.ledger import Ledger
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.tracking.query import children, history, sweeps
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.sweep import open_ledger

from .conftest import SMALL

CHANGES = [
    *SMALL,
    "training.rounds=400",
    "training.evaluate_every=100",
    "search.trials=6",
    "search.min_rounds=100",
]
COMMAND = [sys.executable, "-m", "saddlepoint", "run", "digits-wgan"]


def events(place: Path) -> list[dict[str, Any]]:
    spool = place / "sweeps" / "digits-wgan" / "tracking" / "spool.jsonl"
    if not spool.exists():
        return []
    lines = spool.read_bytes().split(b"\n")[:-1]  # the last one may be half written
    return [json.loads(line) for line in lines]


def start(place: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *(part for change in CHANGES for part in ("--set", change))]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    with open(place / "out.txt", "ab") as out:
        return subprocess.Popen(command, cwd=place, stdout=out, stderr=out, start_new_session=True, env=environment)


def in_the_middle(place: Path, finished: int) -> bool:
    """So many trials have ended, and another one has reported but not ended."""
    seen = events(place)
    ended = {event["run"] for event in seen if event["kind"] == "finish"}
    reported = {event["run"] for event in seen if event["kind"] == "picture"}
    return len(ended - {"sweep"}) >= finished and bool(reported - ended)


def ledgers(place: Path) -> list[Ledger]:
    folder = Folder(place / "sweeps" / "digits-wgan")
    pipeline: Pipeline = folder.pipeline()
    confirm = open_ledger(pipeline, folder, "digits-wgan.confirm", sampler="random", pruner="none")
    return [open_ledger(pipeline, folder), confirm]


@pytest.mark.slow
def test_killed_twice_the_run_goes_on_in_the_same_study_and_the_same_mlflow_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ended_before: set[str] = set()
    length = 0
    for finished in (1, 3):
        process = start(tmp_path)
        deadline = time.monotonic() + 240
        while not in_the_middle(tmp_path, finished):
            assert process.poll() is None, (tmp_path / "out.txt").read_text()
            assert time.monotonic() < deadline, events(tmp_path)[-3:]
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen = events(tmp_path)
        assert not ended_before & {event["run"] for event in seen[length:]}  # what had ended was not touched
        ended_before = {event["run"] for event in seen if event["kind"] == "finish"} - {"sweep"}
        length = len(seen)
    process = start(tmp_path)
    assert process.wait(timeout=400) == 0, (tmp_path / "out.txt").read_text()
    assert (tmp_path / "out.txt").read_text().splitlines()[-1].endswith("champion.png")

    assert not ended_before & {event["run"] for event in events(tmp_path)[length:]}
    search, confirm = (ledger.trials() for ledger in ledgers(tmp_path))
    assert [trial.number for trial in search] == list(range(6))
    assert {trial.state for trial in (*search, *confirm)} <= {"complete", "pruned", "diverged"}
    [parent] = sweeps(None)
    runs = {run.key: run for run in children(None, parent.sweep)}
    assert set(runs) == {f"trial-{t.number:04d}" for t in search} | {f"confirm-{t.number:04d}" for t in confirm}
    assert {run.status for run in (parent, *runs.values())} <= {"FINISHED", "KILLED", "FAILED"}
    for trial in search:
        points = history(None, runs[f"trial-{trial.number:04d}"].run_id, "fid")
        assert dict(points) == trial.intermediate  # nothing lost
        assert max(Counter(step for step, _ in points).values()) == 1  # nothing doubled
    assert [version.version for version in registry.models(None, "digits-generator")] == [1]

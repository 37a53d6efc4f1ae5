"""kill -9 at chosen and at random instants, then the same again: no hole, no double, nothing left running."""

import os
import random
import shutil
import signal
import time
from functools import partial

import pytest
from mlflow import MlflowClient

from saddlepoint.tracking import delivery, sender, tracker
from saddlepoint.tracking.spool import Spool
from saddlepoint.tracking.store import connect, sqlite_uri

TRIALS, ROUNDS = 3, 40


def sweep(folder, uri, png, *, before_each=lambda: None):
    """What a driver does, and after a crash again: a trial goes on from a checkpoint some rounds back."""
    with tracker.Tracker(folder, tracking_uri=uri, experiment="digits") as t:
        t.start_run("sweep", name="sweep", params={"trials": TRIALS}, tags={})
        for key in [f"trial-{number:04d}" for number in range(TRIALS)]:
            t.start_run(key, name=key, parent="sweep", params={f"p{n}": n for n in range(120)}, tags={"a": "b"})
            checkpoint = max(0, t.last_step(key) - 7)
            for step in range(checkpoint, ROUNDS):
                before_each()
                t.log(key, step, {"loss": step / 7, "wave": step % 5})
                if step % 10 == 0:
                    t.log(key, step, {"fid": 100 - step})
                    t.picture(key, "samples", step, png(step))
            t.finish(key, "FINISHED")
        t.artifact("sweep", "report.html", "<html>")
        t.finish("sweep", "FINISHED")
        if not t.drain(60):
            raise SystemExit(1)


@pytest.fixture
def whole(uri, tmp_path, png, look):
    """What MLflow holds of a sweep that was never killed."""
    (tmp_path / "reference").mkdir()
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "reference" / "mlflow.db")
    reference = sqlite_uri(tmp_path / "reference" / "mlflow.db")
    sweep(tmp_path / "reference" / "sweep", reference, png)
    seen = look(reference)
    assert [len(run["history"].get("loss", [])) for run in seen.values()].count(ROUNDS) == TRIALS
    assert {run["status"] for run in seen.values()} == {"FINISHED"}
    return seen


def dying(method, call, when):
    """`method` such that the process is killed before, or after, its `call`-th call."""
    calls = 0

    def replaced(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = method(*args, **kwargs)
        if calls == call and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return replaced


KILLS = [  # one after the other in the same folder; the number is that of the call within its process
    (Spool, "append", 30, "before"),
    (Spool, "append", 31, "after"),
    (tracker, "write_bytes", 4, "after"),  # a picture on disk of which no event speaks
    (MlflowClient, "create_run", 1, "after"),  # made, not noted
    (MlflowClient, "create_run", 1, "before"),
    (MlflowClient, "log_batch", 2, "after"),  # half of the parameters
    (delivery.Delivery, "_note", 1, "before"),
    (Spool, "advance", 1, "before"),  # sent, and the cursor does not know
    (MlflowClient, "log_artifact", 1, "after"),  # the picture without its small copy
    (sender.shutil, "rmtree", 1, "before"),  # a picture that has arrived and is still there
    (MlflowClient, "log_batch", 6, "before"),
    (MlflowClient, "set_terminated", 1, "after"),
    (Spool, "advance", 2, "after"),
]


def test_killed_at_any_step_it_ends_as_if_never_killed(uri, tmp_path, png, look, whole, in_child):
    def killed(owner, name, call, when):
        sender.EVENTS, sender.LINGER = 25, 0.0
        setattr(owner, name, dying(getattr(owner, name), call, when))
        sweep(tmp_path / "sweep", uri, png)

    for kill in KILLS:
        assert in_child(partial(killed, *kill)) == -signal.SIGKILL, f"{kill} never came to pass"
    assert in_child(partial(sweep, tmp_path / "sweep", uri, png)) == 0
    assert look(uri) == whole
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()
    assert not list((tmp_path / "sweep" / "outbox").iterdir())


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_as_if_never_killed(uri, tmp_path, png, look, whole):
    draw = random.Random(0)
    for _ in range(30):
        child = os.fork()
        if child == 0:
            sender.EVENTS, sender.LINGER = 25, 0.01
            sweep(tmp_path / "sweep", uri, png, before_each=partial(time.sleep, 0.005))
            os._exit(0)
        time.sleep(draw.uniform(0.02, 0.8))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sweep(tmp_path / "sweep", uri, png)
    assert look(uri) == whole
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()


def test_processes_that_start_at_once_make_one_whole_database(tmp_path):
    fresh = sqlite_uri(tmp_path / "new" / "mlflow.db")
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                client = connect(fresh)
                delivery.experiment_id(client, fresh, "digits")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    names = [found.name for found in connect(fresh).search_experiments()]
    assert sorted(names) == ["Default", "digits"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]

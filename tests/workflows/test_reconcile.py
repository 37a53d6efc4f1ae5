"""What a crash leaves, made for real, is repaired once; a second look finds nothing."""

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from saddlepoint.errors import SaddleError
from saddlepoint.scaling.jobs import Execution, Source
from saddlepoint.search import ledger as ledger_room
from saddlepoint.search.records import TrialRecord
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.delivery import Delivery
from saddlepoint.tracking.query import TrackedRun, children, history, sweeps
from saddlepoint.tracking.store import connect, sqlite_uri
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.reconcile import reconcile
from saddlepoint.workflows.sweep import open_ledger, sweep

from .conftest import in_process

Small = Callable[..., Pipeline]
HOUR = 3_600_000  # milliseconds


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(sqlite_uri(path))
    return path


@pytest.fixture
def place(workplace: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, workplace / "mlflow.db")
    return workplace


@pytest.fixture
def two(small: Small) -> Pipeline:
    return small("search.trials=2", "search.pruner=none")


def in_child(work: Callable[[], Any]) -> int:
    """Minus the signal that ended a forked process. The store must not have been opened here before."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(reports: int, *, arrived: bool) -> Callable[..., Execution]:
    """The executor, whose process is killed at that report; before, all that was said may have arrived."""

    def execute(source: Any, run: Callable[..., None], **_: Any) -> Execution:
        hear, heard = source.result, 0

        def result(number: int, report: Any) -> bool:
            nonlocal heard
            heard += 1
            answer: bool = hear(number, report)
            if heard == reports:
                assert not arrived or source.tracker.drain(60)
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        source.result = result
        return in_process(source, run)

    return execute


def tracked() -> dict[str, TrackedRun]:
    [parent] = sweeps(None)
    return {"sweep": parent, **{run.key: run for run in children(None, parent.sweep)}}


def statuses() -> dict[str, str]:
    return {key: run.status for key, run in tracked().items()}


def trials(two: Pipeline) -> list[TrialRecord]:
    return open_ledger(two, Folder(Path("sweeps") / two.name)).trials()


def assert_whole(two: Pipeline) -> None:
    """Ledger and store tell the same, each point once."""
    runs = tracked()
    for trial in trials(two):
        run = runs[f"trial-{trial.number:04d}"]
        assert run.status == "FINISHED"
        assert run.tags["saddle.outcome"] == "complete"
        assert history(None, run.run_id, "fid") == sorted(trial.intermediate.items())
        assert run.metrics["final/fid"] == trial.value
        assert history(None, run.run_id, "final/fid") == [(13, trial.value)]


def test_what_a_killed_command_left(place: Path, two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_room, "execute", killed_after(6, arrived=True))
    assert in_child(partial(sweep, two)) == -signal.SIGKILL
    folder = place / "sweeps" / two.name
    assert statuses() == {"sweep": "RUNNING", "trial-0000": "FINISHED", "trial-0001": "RUNNING"}
    (folder / "trials" / ".gone-0007-0123abcd").mkdir()
    half = folder / "trials" / "0001" / ".checkpoint.pt.1a2b3c4d"
    half.write_bytes(b"half")
    ended, living = (folder / "trials" / name / "checkpoint.pt" for name in ("0000", "0001"))
    shutil.copy(living, ended)

    done = reconcile(two.name)

    assert [line.partition(": ")[2] for line in done.repaired] == [
        "1 half removed folders are gone",
        "1 half written files are gone",
        "trial-0000 has ended; its checkpoint is gone",
        "trial-0001 is unfinished and was RUNNING; now KILLED until the sweep goes on",
        "its run was RUNNING; now KILLED until the sweep goes on",
    ]
    assert statuses() == {"sweep": "KILLED", "trial-0000": "FINISHED", "trial-0001": "KILLED"}
    assert living.exists()
    assert not half.exists()
    assert reconcile().repaired == []

    monkeypatch.setattr(sweep_room, "execute", in_process)
    sweep(two)
    assert_whole(two)
    assert reconcile() == type(done)()


def test_what_was_never_sent_arrives(place: Path, two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as outage:
        outage.setattr(Delivery, "send", away)
        outage.setattr(sweep_room, "execute", killed_after(8, arrived=False))
        assert in_child(partial(sweep, two)) == -signal.SIGKILL
    assert sweeps(None) == []

    [sent, *rest] = reconcile(two.name).repaired
    assert "events that had not arrived" in sent
    # The end of trial 1 was heard, and not told: it is unfinished.
    assert [line.split(" ")[1] for line in rest] == ["trial-0001", "its"]
    assert statuses() == {"sweep": "KILLED", "trial-0000": "FINISHED", "trial-0001": "KILLED"}
    assert reconcile(two.name).repaired == []


def test_a_store_written_by_hand_agrees_with_the_ledger_again(place: Path, two: Pipeline) -> None:
    sweep(two)
    assert_whole(two)
    client, runs = MlflowClient(sqlite_uri(place / "mlflow.db")), tracked()
    client.update_run(runs["trial-0000"].run_id, status="RUNNING")
    client.update_run(runs["sweep"].run_id, status="RUNNING")
    client.delete_tag(runs["trial-0001"].run_id, "saddle.outcome")

    lines = reconcile().repaired

    assert [line.partition(": ")[2] for line in lines] == [
        "trial-0000 has ended (complete) and was RUNNING; now FINISHED",
        "trial-0001 has ended (complete) and was FINISHED; now FINISHED",
        "its run was RUNNING; now KILLED until the sweep goes on",
    ]
    assert_whole(two)
    assert reconcile().repaired == []


def test_a_store_that_came_back_older_is_told_again(place: Path, two: Pipeline) -> None:
    sweep(two)
    runs = tracked()
    with sqlite3.connect(place / "mlflow.db") as database:
        where = "run_uuid = ? AND key = 'fid' AND step = 8"
        assert database.execute(f"DELETE FROM metrics WHERE {where}", (runs["trial-0001"].run_id,)).rowcount == 1
    MlflowClient(sqlite_uri(place / "mlflow.db")).delete_run(runs["trial-0000"].run_id)
    assert "trial-0000" not in tracked()

    assert "lost some of its history" in reconcile().repaired[0]
    assert_whole(two)
    assert tracked()["trial-0000"].params == runs["trial-0000"].params
    assert reconcile().repaired == []


def test_a_hole_that_the_spool_has_too_is_filled_from_the_ledger(place: Path, two: Pipeline) -> None:
    sweep(two)
    run = tracked()["trial-0001"].run_id
    with sqlite3.connect(place / "mlflow.db") as database:
        database.execute("DELETE FROM metrics WHERE run_uuid = ? AND key = 'fid' AND step < 10", (run,))
    tracking = place / "sweeps" / two.name / "tracking"
    lines = (tracking / "spool.jsonl").read_text().splitlines()
    gone = [line for line in lines if '"kind":"log","run":"trial-0001"' in line and '"fid"' in line]
    kept = [line for line in lines if line not in gone[:2]]
    (tracking / "spool.jsonl").write_text("\n".join(kept) + "\n")
    (tracking / "spool.sent").write_text(str((tracking / "spool.jsonl").stat().st_size))

    [line] = reconcile().repaired
    assert "trial-0001 had a history with holes; 2 points" in line
    assert_whole(two)
    assert reconcile().repaired == []


def test_without_its_spool_a_sweep_is_told_from_the_ledger(place: Path, two: Pipeline) -> None:
    sweep(two)
    before = tracked()
    shutil.rmtree(place / "sweeps" / two.name / "tracking")
    for run in before.values():
        MlflowClient(sqlite_uri(place / "mlflow.db")).delete_run(run.run_id)

    lines = reconcile(two.name).repaired

    assert sum("had no run in the tracking store" in line for line in lines) == 2
    assert_whole(two)
    after = tracked()
    for key in ("trial-0000", "trial-0001"):
        assert after[key].params == before[key].params
        assert after[key].tags.keys() >= {"saddle.commit", "saddle.protocol.samples"}
    assert after["sweep"].status == "KILLED"
    assert reconcile().repaired == []


def test_a_trial_settled_by_halves_is_settled(place: Path, two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as crash:
        crash.setattr(ledger_room, "settle", killed)
        assert in_child(partial(sweep, two)) == -signal.SIGKILL
    assert [trial.state for trial in trials(two)] == ["running"]

    assert "trial-0000 had ended, which the ledger knew by halves" in reconcile().repaired[0]
    assert [trial.state for trial in trials(two)] == ["complete"]
    assert reconcile().repaired == []


def test_a_run_of_nobody_is_killed_when_it_has_long_been_silent(place: Path) -> None:
    client, now = MlflowClient(sqlite_uri(place / "mlflow.db")), time.time_ns() // 1_000_000
    other = client.create_experiment("others")

    def run(name: str, started: float, alive: float) -> str:
        made = client.create_run(other, now - int(started * HOUR), run_name=name, tags={"saddle.sweep": "elsewhere"})
        client.log_metric(made.info.run_id, "loss", 1.0, now - int(alive * HOUR), 1)
        return str(made.info.run_id)

    silent, speaking, done = run("silent", 30, 25.5), run("speaking", 30, 1), run("done", 30, 29)
    client.set_terminated(done, "FINISHED")

    found = reconcile()

    assert len(found.repaired) == len(found.left) == 1
    assert "'silent'" in found.repaired[0]
    assert "no sign of life for 25.5 h" in found.repaired[0]
    assert "'speaking'" in found.left[0]
    ended = client.get_run(silent)
    assert (ended.info.status, ended.info.end_time) == ("KILLED", now - int(25.5 * HOUR))
    assert "25.5 hours" in ended.data.tags["saddle.reconciled"]
    assert client.get_run(speaking).info.status == "RUNNING"
    assert client.get_run(done).info.status == "FINISHED"
    assert reconcile().repaired == []
    assert len(reconcile(stale_after=0.5).repaired) == 1
    assert reconcile(stale_after=0.5) == type(found)()


def test_a_sweep_at_work_is_not_touched(place: Path, two: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def execute(source: Source, run: Callable[..., None], **_: Any) -> Execution:
        seen.append(reconcile())
        with pytest.raises(SaddleError, match="another command"):
            reconcile(two.name)
        return in_process(source, run)

    monkeypatch.setattr(sweep_room, "execute", execute)
    sweep(two)
    [found] = seen
    assert found.repaired == []
    assert "another command" in found.left[0]
    assert_whole(two)


def test_the_command_speaks_in_lines(
    place: Path,
    two: Pipeline,
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep(two)
    capsys.readouterr()
    assert saddle("reconcile") == 0
    assert capsys.readouterr().out.strip() == "nothing to repair"
    (place / "sweeps" / two.name / "trials" / ".gone-0009-0123abcd").mkdir()
    assert saddle("reconcile", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "repaired": ["digits-wgan: 1 half removed folders are gone"],
        "left": [],
    }
    assert saddle("reconcile", "digits-wgam") == 2
    assert capsys.readouterr().err == "saddle: sweep: 'digits-wgam' is not known; did you mean 'digits-wgan'?\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert saddle("reconcile") == 1
    error = capsys.readouterr().err
    assert error.startswith("saddle: tracking store http://127.0.0.1:9 fails: ")
    assert error.count("\n") == 1

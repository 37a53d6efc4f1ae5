"""Against a real MLflow server on this machine: away at first, killed in the midst, told the same twice."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from saddlepoint.tracking import sender, ui
from saddlepoint.tracking.tracker import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture
def server(uri, tmp_path):
    """Starts the server that `saddle ui` starts; kills what it has started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    started = []

    def start() -> subprocess.Popen[bytes]:
        arguments, environment = ui.command(uri, port)
        with open(tmp_path / "server.log", "ab") as log:
            started.append(subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address}/health").close()
                return started[-1]
            except OSError:
                time.sleep(0.2)
        raise AssertionError((tmp_path / "server.log").read_text())

    def kill() -> None:
        os.killpg(started[-1].pid, signal.SIGKILL)
        started[-1].wait()

    yield address, start, kill
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_server_away_then_killed_then_told_again(server, uri, tmp_path, monkeypatch, look, small_sweep, png):
    monkeypatch.setattr(sender, "LINGER", 0.01)
    address, start, kill = server
    tracker = Tracker(tmp_path / "sweep", tracking_uri=address, experiment="digits")
    small_sweep(tracker)
    assert not tracker.drain(2)
    assert "onnection" in tracker.trouble
    start()
    assert tracker.drain(120)
    assert tracker.trouble is None

    tracker.start_run("late", name="late", parent="sweep", params={"lr": 1}, tags={})
    for step in range(400):
        tracker.log("late", step, {"loss": step, "odd": float("nan") if step % 2 else float("inf")})
        if step == 200:
            kill()
    tracker.picture("late", "samples", 10, png(50))
    tracker.finish("late", "FINISHED")
    assert not tracker.drain(2)
    start()
    assert tracker.drain(120)
    tracker.close()

    seen = look(uri)
    assert set(seen) == {"sweep", "trial-0000", "trial-0001", "late"}
    assert {key: run["status"] for key, run in seen.items()} == {
        "sweep": "FINISHED",
        "trial-0000": "KILLED",
        "trial-0001": "KILLED",
        "late": "FINISHED",
    }
    assert seen["late"]["parent"] == "sweep"
    assert [step for step, _ in seen["late"]["history"]["loss"]] == list(range(400))
    assert [step for step, value in seen["late"]["history"]["odd"] if value == "nan"] == list(range(1, 400, 2))
    assert seen["trial-0000"]["history"]["loss"] == [(10, "-10.0"), (20, "nan"), (30, "-30.0")]

    (tmp_path / "sweep" / "spool.sent").write_text("0")
    with Tracker(tmp_path / "sweep", tracking_uri=address, experiment="digits") as again:
        assert again.drain(120)
        run_id = again.run_id("late")
    assert look(uri) == seen
    assert not (tmp_path / "sweep" / "spool.rejected.jsonl").exists()

    def get(path: str) -> bytes:
        with urllib.request.urlopen(address + path) as answer:
            return answer.read()

    listed = json.loads(get(f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}&path=images"))["files"]
    picture = next(file["path"] for file in listed if file["path"].endswith(".png"))
    assert get(f"/get-artifact?path={urllib.parse.quote(picture)}&run_uuid={run_id}") == png(50)

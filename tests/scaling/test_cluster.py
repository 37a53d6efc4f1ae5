"""A whole command in a process of its own: what Ctrl-C does to it, and that the terminal stays clean."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from saddlepoint.errors import UserError
from saddlepoint.scaling import cluster

COMMAND = """
import json, os, signal, sys, time
from pathlib import Path
from saddlepoint.scaling import cluster
from saddlepoint.scaling.executor import execute
from saddlepoint.scaling.jobs import Job, Resources

folder = Path(sys.argv[1])


def run(payload, report):
    print("a word from the worker")
    for step in range(10**6):
        report({"step": step})
        if payload == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "short":
            return
        time.sleep(0.05)


class Source:
    jobs = iter([Job(0, "short"), Job(1, "dies"), Job(2, "long"), Job(3, "long"), Job(4, "long")])
    ended_jobs = {}
    ready = False

    def next(self):
        return next(self.jobs, None)

    def result(self, number, report):
        if number == 3 and report["step"] == 3:
            Path(folder / "ready").touch()
        return False

    def ended(self, number, end):
        self.ended_jobs[number] = end.how


before = signal.getsignal(signal.SIGINT)
with cluster.running(cpus=2, log=folder / "ray.log"):
    execution = execute(Source(), run, resources=Resources(), storage=folder, log=folder / "ray.log")
after = signal.getsignal(signal.SIGINT)
print(json.dumps([execution.interrupted, execution.ended, Source.ended_jobs, after is before]))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_jobs_unended_and_the_terminal_shows_nothing_of_ray(tmp_path):
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while command.poll() is None and not (tmp_path / "ready").exists():
        try:
            command.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 1
    interrupted, ended, told, restored = json.loads(lines[0])
    assert interrupted
    assert restored
    assert sorted(ended) == [0, 1]
    assert told == {"0": "done", "1": "lost"}
    assert command.returncode == 0
    assert "A worker died or was killed" in (tmp_path / "ray.log").read_text()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_the_users_error(tmp_path, monkeypatch, address, capfd):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: [^\n]*$"):
        cluster.start(log=tmp_path / "ray.log")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no Ray cluster; its head listens at port 6379"),
        (b"", "is no Ray cluster; its head listens at port 6379"),  # it hangs up
        (None, "no Ray cluster answers at"),  # it says nothing at all
    ],
)
def test_whoever_listens_there_and_is_not_ray_is_told_before_ray_waits_for_it(
    answer: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.setattr(cluster, "GREETING", 0.5)
    monkeypatch.setattr(cluster, "GcsClient", lambda **_: pytest.fail("Ray was let wait for it"))
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def reply() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(1024)
                if answer is None:
                    connection.recv(1024)  # until the other side has had enough
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        assert said in refusal(lambda: cluster.check(f"127.0.0.1:{stranger.getsockname()[1]}"))
        thread.join()


SEEN = """
import os, sys
from pathlib import Path
import ray
from saddlepoint.scaling import cluster


@ray.remote(num_cpus=1)
def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


with cluster.running(cpus=1, log=Path(sys.argv[1])):
    print(ray.get([seen.options(num_gpus=gpus).remote() for gpus in (0, 1)]))
"""


@pytest.mark.slow
def test_who_asks_for_no_gpu_sees_none(tmp_path, monkeypatch):
    """Else trials would train on a GPU that nobody has counted. Ray believes that there is one."""
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    command = [sys.executable, "-c", SEEN, str(tmp_path / "ray.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("['', '0']\n", "")

"""Against a real Ray head with token authentication: jobs run, are followed, found and stopped; strangers stay out."""

import asyncio
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.scaling import submission
from saddlepoint.scaling.cluster import token
from saddlepoint.scaling.submission import Jobs, Submitted, checked_address

TOKEN = "a-token-of-this-test-0123456789abcdef"
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
Refusal = Callable[[Callable[[], object]], str]


@pytest.fixture(scope="module")
def head(benchmark: Callable[..., Any]) -> Iterator[Any]:
    """One node of benchmarks/cluster on loopback."""
    nodes = benchmark("cluster", "nodes")
    network = nodes.Network(separate=False)
    short = Path(f"/tmp/sdl-{os.getpid()}")  # the path of a Unix socket has at most 107 characters
    short.mkdir()
    found = nodes.Nodes(network, short, TOKEN, cpus=(1,))
    yield found
    found.close()
    subprocess.run(["rm", "-rf", str(short)], check=False)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a token, an environment without one."""
    for name in (*AUTHENTICATION, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def jobs(head: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # an address that is given comes first
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    return Jobs(head.dashboard)


def test_a_job_runs_in_its_folder_and_is_followed_to_its_end(
    jobs: Jobs, tmp_path: Path, capfd: pytest.CaptureFixture[str], refusal: Refusal
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "told.txt").write_text("from the folder\n")
    command = "cat told.txt && echo $WORD && for i in 1 2 3; do echo line $i; sleep 1.5; done"
    jobs.submit(
        "digits-1a2b",
        command,
        folder=tmp_path / "work",
        environment={"WORD": "from the environment"},
        notes={"sweep": "/s"},
    )
    heard: list[str] = []
    ended = jobs.follow("digits-1a2b", heard.append)
    text = "".join(heard)
    assert ended.status == "SUCCEEDED"
    assert ended.notes["sweep"] == "/s"
    assert ended.started is not None
    assert ended.ended is not None
    assert 4.5 < ended.ended - ended.started < 120  # three lines, 1.5 s each
    lines = [line for line in text.splitlines() if " INFO " not in line.expandtabs(1) and "entrypoint" not in line]
    assert lines == ["from the folder", "from the environment", "line 1", "line 2", "line 3"]
    assert len(heard) > 1  # as it came, not at the end
    assert jobs.log("digits-1a2b") == text
    assert [job.id for job in jobs.all()] == ["digits-1a2b"]
    assert "did you mean 'digits-1a2b'?" in refusal(lambda: jobs.job("digits-1a2c"))
    assert "did you mean 'digits-1a2b'?" in refusal(lambda: jobs.follow("digits-1a2c", heard.append))
    for id in ("", ".", "..", "digits-1a2b?x", "digits-1a2b#x", "digits-1a2b/logs", "../jobs/digits-1a2b"):
        assert refusal(lambda id=id: jobs.job(id)).startswith(f"job: {id!r} is not known; ")
    assert capfd.readouterr() == ("", "")

    jobs.submit("falls", "echo oh dear; exit 3", folder=tmp_path / "work", environment={})
    fallen = jobs.follow("falls", heard.append)
    assert fallen.status == "FAILED"
    assert "exit code 3" in fallen.message
    with pytest.raises(SaddleError, match="falls"):  # an id is taken once
        jobs.submit("falls", "true", folder=tmp_path / "work", environment={})


def test_a_job_is_stopped_as_by_ctrl_c(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "long.py").write_text(
        "import time\ntry:\n    print('begun', flush=True)\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    time.sleep(4)\n    print('in good order')\n"
    )
    jobs.submit("long", "exec python long.py", folder=tmp_path / "work", environment={})
    until = time.monotonic() + 120
    while "begun" not in jobs.log("long") and time.monotonic() < until:
        time.sleep(0.3)
    assert jobs.stop("long").status == "STOPPED"
    assert "in good order" in jobs.log("long")  # 4 s: longer than Ray waits unless it is told
    assert jobs.stop("long").status == "STOPPED"


def test_ctrl_c_ends_the_following_and_not_the_job(jobs: Jobs, head: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    jobs.submit("goes-on", "echo begun; sleep 600", folder=tmp_path / "work", environment={})
    command = [sys.executable, "-m", "saddlepoint", "logs", "goes-on", "--follow", "--address", head.dashboard]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        for line in following.stdout:
            if line == "begun\n":
                break
        following.send_signal(signal.SIGINT)
        assert following.stderr.read() == (
            "saddle: goes-on goes on without this command; "
            f"come back: saddle logs goes-on --follow --address {head.dashboard}; "
            f"end it: saddle stop goes-on --address {head.dashboard}\n"
        )
    assert following.returncode == 1
    assert jobs.job("goes-on").status == "RUNNING"
    assert jobs.stop("goes-on").status == "STOPPED"


def test_without_the_token_or_with_another_nobody_gets_in(
    head: Any, home: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, capfd: pytest.CaptureFixture[str]
) -> None:
    for mode in (None, "token", "disabled"):
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        assert "asks for a token: set RAY_AUTH_TOKEN" in refusal(lambda: Jobs(head.dashboard))
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    said = refusal(lambda: Jobs(head.dashboard))
    assert said.startswith("RAY_AUTH_TOKEN: ")
    assert "takes another token" in said
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(f"{TOKEN}\n")
    assert isinstance(Jobs(head.dashboard).all(), list)
    assert capfd.readouterr() == ("", "")


def test_a_token_is_looked_for_where_ray_does(home: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    assert token() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of the home\n")
    found = token()
    assert found is not None
    assert (found.secret, found.source) == ("of the home", str(home / ".ray" / "auth_token"))
    assert "of the home" not in repr(found)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "no file"))
    assert "RAY_AUTH_TOKEN_PATH: " in refusal(token)
    (home / "file").write_text("of a file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "file"))
    assert getattr(token(), "secret", None) == "of a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "itself")
    assert getattr(token(), "secret", None) == "itself"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token() is None


@pytest.mark.parametrize("text", ["two\nlines-of-it", "worth 5 €", "tab\tin it", "caf\u00e9"])
@pytest.mark.parametrize("place", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
def test_what_cannot_be_a_token_is_refused_and_not_told(
    place: str, text: str, home: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(text)
    if place != "home":
        monkeypatch.setenv(place, text if place == "RAY_AUTH_TOKEN" else str(file))
    said = refusal(lambda: Jobs("http://127.0.0.1:1"))
    assert said.startswith(f"{file if place == 'home' else place}: holds no token")
    assert not any(word in said for word in (*text.split(), *repr(text)[1:-1].split()) if len(word) > 2)


DRIVER = """
import sys
from pathlib import Path
from saddlepoint.errors import UserError
from saddlepoint.scaling import cluster
try:
    with cluster.running(log=Path(sys.argv[1])):
        import ray
        print(ray.cluster_resources()["CPU"])
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("settings", "right"),
    [
        ({}, "asks for a token: set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "RAY_AUTH_TOKEN: the cluster at"),
        ({"RAY_AUTH_TOKEN": "wrong", "RAY_AUTH_MODE": "token"}, "takes another token"),
        ({"RAY_AUTH_TOKEN": TOKEN}, "1.0"),
    ],
)
def test_a_driver_gets_in_by_the_token_alone(
    head: Any, home: Path, settings: dict[str, str], right: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "ray.log")],
        env={**os.environ, **settings, "RAY_ADDRESS": head.gcs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert right in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://", "8265", "http://[::1"])
def test_an_address_that_is_none_is_refused(address: str, refusal: Refusal, home: Path) -> None:
    assert refusal(lambda: checked_address(address)).startswith(f"--address: {address!r} should be http://HEAD:8265")


class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


def test_nobody_at_the_address_is_said_in_a_line_and_soon(
    home: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert refusal(lambda: Jobs(f"http://127.0.0.1:{port}")).startswith(
        f"no Ray cluster answers at http://127.0.0.1:{port}"
    )
    monkeypatch.setattr(submission, "GREETING_LIMITS", (0.5, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "timed out" in refusal(lambda: Jobs(f"http://127.0.0.1:{port}"))
    server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert "404" in refusal(lambda: Jobs(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()
    server.server_close()


SETUP = """runtime_env setup failed: Failed to set up runtime environment.
Could not create the actor because its associated runtime env failed to be created.
[Node 192.0.2.2] Traceback (most recent call last):
Last 50 lines of stdout:
    ERROR: Could not find a version that satisfies the requirement nonesuch (from versions: none)
    ERROR: No matching distribution found for nonesuch
"""  # as Ray 2.60 gives it, shortened


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (SETUP, "its environment cannot be made on the nodes: No matching distribution found for nonesuch"),
        (SETUP.partition("Last 50")[0], "runtime_env setup failed: Failed to set up runtime environment."),
        ("exit code 1, last available logs (truncated to 20,000 chars):\nERROR: of the job", "exit code 1"),
    ],
)
def test_why_a_job_failed_is_a_line(message: str, reason: str) -> None:
    assert Submitted("digits-1a2b", "FAILED", message, 1.0, 2.0).reason == reason


WHOLE = ["one\n", "two\nthree\n", "four\n", "five\n"]


class Torn:
    """A client whose connection breaks twice in mid-log, and begins again at the log's beginning each time."""

    def __init__(self, *_: Any) -> None:
        self.tails = 0

    async def tail_job_logs(self, id: str) -> Any:
        self.tails += 1
        for text in WHOLE[: self.tails]:
            yield text
        if self.tails < 3:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_info(self, id: str) -> Any:
        status = "SUCCEEDED" if self.tails == 3 else "RUNNING"
        return SimpleNamespace(submission_id=id, status=SimpleNamespace(value=status), message="", start_time=1,
                               end_time=None, metadata=None)  # fmt: skip

    def get_job_logs(self, id: str) -> str:
        return "".join(WHOLE[: self.tails + 1])  # which is already longer


class Gone(Torn):
    """Nobody answers any more, once the job was found."""

    def get_job_logs(self, id: str) -> str:
        raise ConnectionError("Connection refused")


def test_a_connection_that_breaks_doubles_no_line_and_loses_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_Client", Torn)
    heard: list[str] = []
    assert Jobs("http://head:8265").follow("job", heard.append).status == "SUCCEEDED"
    assert "".join(heard) == "".join(WHOLE)


def test_a_reader_who_has_enough_is_no_trouble_of_the_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(submission, "_Client", Torn)
    with pytest.raises(BrokenPipeError):
        Jobs("http://head:8265").follow("job", full)


def test_a_cluster_that_is_gone_is_not_waited_for_for_ever(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_Client", Gone)
    monkeypatch.setattr(submission, "PATIENCE", 0.5)
    with pytest.raises(SaddleError, match=r"^no Ray cluster answers at http://head:8265: Connection refused$") as error:
        Jobs("http://head:8265").follow("job", lambda text: None)
    assert not isinstance(error.value, UserError)


class Vanished(Gone):
    """A head whose machine lost its power: the connection stays, and nothing comes any more."""

    async def tail_job_logs(self, id: str) -> Any:
        yield "one\n"
        await asyncio.sleep(3600)


class Drowsy(Torn):
    """A connection that fell asleep, as behind some routers, while the job came to its end."""

    async def tail_job_logs(self, id: str) -> Any:
        self.tails = 3
        yield "one\n"
        await asyncio.sleep(3600)


@pytest.mark.timeout(60)
def test_a_head_that_vanished_or_a_connection_that_sleeps_is_not_waited_for_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "PATIENCE", 0.5)
    monkeypatch.setattr(submission, "QUIET", 0.2)
    heard: list[str] = []
    monkeypatch.setattr(submission, "_Client", Vanished)
    with pytest.raises(SaddleError, match="no Ray cluster answers at"):
        Jobs("http://head:8265").follow("job", heard.append)
    assert heard == ["one\n"]
    heard.clear()
    monkeypatch.setattr(submission, "_Client", Drowsy)
    assert Jobs("http://head:8265").follow("job", heard.append).status == "SUCCEEDED"
    assert "".join(heard) == "".join(WHOLE)

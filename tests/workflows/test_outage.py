"""The tracking server away, slow, or answering every second request with 503: the sweep neither stops nor waits, and in
the end all has arrived."""

import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.scaling.jobs import Execution
from saddlepoint.tracking.delivery import Delivery
from saddlepoint.tracking.store import connect, sqlite_uri
from saddlepoint.workflows import sweep as sweep_room

from .conftest import SMALL, in_process

pytestmark = pytest.mark.slow

SETS = [part for change in (*SMALL, "search.trials=2", "search.pruner=none") for part in ("--set", change)]
COMMAND = ("sweep", "digits-wgan", *SETS)


@pytest.fixture(scope="module")
def chaos(benchmark: Callable[..., Any]) -> Callable[[str], Any]:
    """`chaos("evidence")`: a module of the program that kills."""
    return partial(benchmark, "chaos")


@pytest.fixture(scope="module")
def server(chaos: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real MLflow server, not started yet."""
    place = tmp_path_factory.mktemp("server")
    connect(sqlite_uri(place / "mlflow.db"))
    made = chaos("killing").Server(place)
    yield made
    made.kill()


@pytest.fixture
def quiet(workplace: Path, server: Any, chaos: Callable[[str], Any], saddle: Callable[..., int]) -> Any:
    """What the sweep leaves in a store that is always there."""
    shutil.copy(server.place / "mlflow.db", workplace / "mlflow.db")
    assert saddle(*COMMAND) == 0
    return chaos("evidence").gather(workplace, "digits-wgan", workplace / "mlflow.db")


@pytest.fixture
def elsewhere(quiet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


class Proxy(ThreadingHTTPServer):
    """Stands before a server; every answer takes `delay` seconds, every `broken`th is a 503 that is not passed on."""

    def __init__(self, behind: str, *, delay: float = 0.0, broken: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.behind, self.delay, self.broken = behind, delay, broken
        self.requests = self.refused = 0
        self.lock = threading.Lock()
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Forward(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.server.delay)
        with self.server.lock:
            self.server.requests += 1
            refuse = self.server.broken is not None and self.server.requests % self.server.broken == 0
            self.server.refused += refuse
        if refuse:
            self.answer(503, b"")
            return
        headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
        request = urllib.request.Request(self.server.behind + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                self.answer(found.status, found.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


def test_a_server_away_for_a_whole_sweep_gets_everything_when_it_is_back(
    server: Any,
    quiet: Any,
    elsewhere: Path,
    chaos: Callable[[str], Any],
    saddle: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    capsys.readouterr()
    assert saddle(*COMMAND) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"saddle: tracking waits in {elsewhere / 'sweeps' / 'digits-wgan' / 'tracking'} for ")
    assert server.uri in line

    server.start()
    server.wait()
    assert saddle("reconcile") == 0
    [sent] = capsys.readouterr().out.splitlines()
    assert "events that had not arrived in the tracking store were sent" in sent
    seen = chaos("evidence").gather(elsewhere, "digits-wgan", server.place / "mlflow.db")
    assert str(chaos("evidence").compare(seen, quiet)).startswith("0 lost, 0 doubled, 0 left RUNNING; 0 other")
    assert saddle("reconcile") == 0
    assert capsys.readouterr().out == "nothing to repair\n"


@pytest.mark.parametrize("illness", [{"delay": 2.0}, {"broken": 2}], ids=["slow", "503"])
def test_a_server_that_is_ill_is_not_waited_for(
    illness: dict[str, Any],
    server: Any,
    quiet: Any,
    elsewhere: Path,
    chaos: Callable[[str], Any],
    saddle: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.start() if server.process is None else None
    server.wait()
    proxy = Proxy(server.uri, **illness)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    asking: set[str] = set()  # threads that speak to the server
    ahead: list[bool] = []
    send = Delivery.send

    def watched(self: Delivery, events: Any) -> None:
        asking.add(threading.current_thread().name)
        send(self, events)

    def execute(source: Any, run: Callable[..., None], **_: Any) -> Execution:
        done = in_process(source, run)
        ahead.append(not source.tracker.drain(0.0))
        proxy.delay = 0.0
        return done

    monkeypatch.setattr(Delivery, "send", watched)
    monkeypatch.setattr(sweep_room, "execute", execute)
    assert saddle(*COMMAND) == 0
    assert asking == {"saddlepoint-tracking"}  # whoever takes a report never waits for an answer
    if proxy.broken:
        assert proxy.refused > 5
    else:
        assert ahead == [True]  # the trials had ended before the store had heard of it
    saddle("reconcile")
    seen = chaos("evidence").gather(elsewhere, "digits-wgan", server.place / "mlflow.db")
    assert str(chaos("evidence").compare(seen, quiet)).startswith("0 lost, 0 doubled, 0 left RUNNING; 0 other")
    proxy.shutdown()
    proxy.server_close()

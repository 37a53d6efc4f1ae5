"""One sweep under kills: the same command again and again until it has run to its end, beside a tracking server that
dies too."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from evidence import Evidence, Losses, compare, gather, leftovers
from processes import kill, working_in

from saddlepoint.tracking import ui
from saddlepoint.tracking.store import connect, sqlite_uri

KINDS = {
    "driver": "the command's own process",
    "everything": "the command and all of Ray's processes at once, as when the power fails",
    "worker": "a worker of Ray in the midst of a trial",
    "gcs": "Ray's head process",
    "raylet": "Ray's node process, which holds the workers",
    "server": "the tracking server, started again after a pause",
}
PATIENCE = 600.0  # seconds without an end of the command, or of what it leaves: then it hangs
POLL = 0.1
EARLY = 0.25  # of the kills
AGENTS = 90.0  # seconds; Ray's agents notice only after one minute that their raylet was killed


@dataclass(frozen=True)
class Scenario:
    """A pipeline cut small, whose set of trials does not depend on the clock."""

    name: str
    changes: tuple[str, ...]

    def command(self) -> list[str]:
        sets = [part for change in (*self.changes, f"name={self.name}") for part in ("--set", change)]
        return [sys.executable, "-m", "saddlepoint", "sweep", "digits-wgan", *sets]


@dataclass(frozen=True)
class Kill:
    kind: str
    early: bool  # before the command has reported of a trial; or after that
    wait: float  # a share of the time that the undisturbed command takes to its first report; or of a sixth of the rest
    pause: float = 0.0  # seconds until the server comes back
    choice: float = 0.0  # which of several workers


def plan(seed: int, kills: int) -> list[Kill]:
    """Every kind in turn, shuffled: never a third worker in a row, which would rightly count against its trial."""
    rng, found = random.Random(seed), list[Kill]()
    while len(found) < kills:
        kinds = list(KINDS)
        rng.shuffle(kinds)
        found += [Kill(kind, rng.random() < EARLY, rng.random(), rng.uniform(0.5, 10), rng.random()) for kind in kinds]
    return found[:kills]


@dataclass
class Struck:
    """What became of one kill."""

    kind: str
    at: float  # seconds into the life of this command
    when: float  # by the monotonic clock
    ended: float | None = None  # seconds until the command was at its end, if it died of it
    on: float | None = None  # seconds until a trial was heard of again; None: the next kill, or the end, came first


@dataclass
class Story:
    struck: list[Struck] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)
    commands: int = 0
    seconds: float = 0.0


class Server:
    """`mlflow server` on a database of its own, in a folder of its own."""

    def __init__(self, place: Path) -> None:
        (place / "server").mkdir()
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self.place = f"http://127.0.0.1:{self.port}", place
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments, environment = ui.command(sqlite_uri(self.place / "mlflow.db"), self.port)
        folder = self.place / "server"
        with open(folder / "log.txt", "ab") as log:
            self.process = subprocess.Popen(
                arguments, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=10).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL)


def prepare(place: Path, template: Path) -> None:
    """A working folder with a tracking store; MLflow takes ten seconds to make one, so it is made once."""
    place.mkdir(parents=True)
    if not template.exists():
        connect(sqlite_uri(template))
    shutil.copy(template, place / "mlflow.db")


@dataclass(frozen=True)
class Undisturbed:
    """What the sweep leaves when nothing is killed, and the seconds that it takes: to the first report, and on."""

    evidence: Evidence
    start: float
    rest: float

    @classmethod
    def run(cls, scenario: Scenario, place: Path, template: Path) -> "Undisturbed":
        prepare(place, template)
        life, start = Life(scenario, place, None, 0), 0.0
        while not life.over:
            time.sleep(POLL)
            if not start and reports(place / "sweeps" / scenario.name):
                start = time.monotonic() - life.began
        if life.process.returncode or not start:
            raise SystemExit(f"the undisturbed command fails: {life.errors}")
        return cls(gather(place, scenario.name), start, time.monotonic() - life.began - start)


def reports(folder: Path) -> int:
    """How many reports of trials the spool of a sweep holds."""
    spool = folder / "tracking" / "spool.jsonl"
    return spool.read_bytes().count(b'"kind":"log","run":"trial') if spool.exists() else 0


class Life:
    """One process of the command."""

    def __init__(self, scenario: Scenario, place: Path, uri: str | None, number: int) -> None:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        environment |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
        self.began, self.place = time.monotonic(), place
        self.reports = reports(place / "sweeps" / scenario.name)  # before it
        self._errors = place / f"stderr-{number:03d}.txt"
        with open(place / "stdout.txt", "ab") as out, open(self._errors, "wb") as err:
            self.process = subprocess.Popen(
                scenario.command(), cwd=place, stdout=out, stderr=err, start_new_session=True, env=environment
            )

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace").strip()

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def victims(self, kill: Kill) -> list[int]:
        if kill.kind in ("driver", "server"):  # the server is nobody's child
            return [self.process.pid]
        living = working_in(self.place)
        if kill.kind == "everything":
            return [process.pid for process in living]
        found = [process.pid for process in living if process.kind == kill.kind]
        return found[int(kill.choice * len(found)) :][:1]


class Chaos:
    """A scenario, its place, its server, and the kills that are still to come."""

    def __init__(
        self, scenario: Scenario, place: Path, template: Path, wanted: Undisturbed, kills: deque[Kill]
    ) -> None:
        prepare(place, template)
        self.scenario, self.place, self.wanted, self.kills = scenario, place, wanted, kills
        self.folder = place / "sweeps" / scenario.name
        self.server = Server(place)
        self.story = Story()
        self._heard = 0
        self._returns: float | None = None  # when the server comes back

    def run(self) -> Story:
        """Strikes until there are no more kills, or the command is done; those that are left stay in `kills`."""
        began = time.monotonic()
        self.server.start()
        self.server.wait()
        try:
            life = self._life()
            while self.kills and self._strike(life):
                if life.over:
                    life = self._life()
            self._to_the_end(life)
        finally:
            self.server.kill()
            kill([process.pid for process in working_in(self.place)])
        self.story.seconds = time.monotonic() - began
        return self.story

    def _life(self) -> Life:
        self.story.commands += 1
        return Life(self.scenario, self.place, self.server.uri, self.story.commands)

    def _strike(self, life: Life) -> bool:
        """Waits for the moment of the next kill, and kills. False: the command was done before."""
        blow = self.kills[0]
        while not blow.early and reports(self.folder) == life.reports:
            if life.over:
                return self._judge(life)
            self._watch()
        moment = time.monotonic() + blow.wait * (self.wanted.start if blow.early else self.wanted.rest / 6)
        while time.monotonic() < moment or not (victims := life.victims(blow)):
            if life.over:
                return self._judge(life)
            self._watch()
        self.kills.popleft()
        self._heard = reports(self.folder)
        struck = Struck(blow.kind, time.monotonic() - life.began, time.monotonic())
        self.story.struck.append(struck)
        print(f"  command {self.story.commands}, {struck.at:5.1f} s: {blow.kind}", flush=True)
        if blow.kind == "server":
            self.server.kill()
            self._returns = struck.when + blow.pause
            return True
        kill(victims)
        if blow.kind != "worker":
            self._fall(life, struck)
        return True

    def _fall(self, life: Life, struck: Struck) -> None:
        """The command dies of it; by itself if its Ray was killed."""
        while not life.over:
            self._watch()
            if time.monotonic() - struck.when > PATIENCE:
                self.story.losses.left.append(f"the command hangs after the death of its {struck.kind}")
                kill([process.pid for process in working_in(self.place)])
                life.process.wait()
        struck.ended, struck.on = time.monotonic() - struck.when, None
        self._heard = reports(self.folder)  # what it said while it died does not count
        if struck.kind in ("gcs", "raylet"):
            self._judge(life)

    def _judge(self, life: Life) -> bool:
        """Of a command that ended by itself: code 0, or code 1 and one line. Says whether it has more to do."""
        code, errors = life.process.wait(), life.errors
        if self.story.commands > 3 * (len(self.story.struck) + 5):
            raise RuntimeError(f"the command gets nowhere: {errors}")
        if code == 0:
            return False
        if code != 1 or len(errors.splitlines()) != 1 or not errors.startswith("saddle: "):
            self.story.losses.other.append(f"command {self.story.commands} ended with {code} and said {errors!r}")
        return True

    def _watch(self) -> None:
        """What goes on beside: the server comes back, trials are heard of again."""
        time.sleep(POLL)
        now = time.monotonic()
        if self._returns is not None and now > self._returns:
            self._returns = None
            self.server.start()
        last = self.story.struck[-1] if self.story.struck else None
        if last is not None and last.on is None and reports(self.folder) > self._heard:
            last.on = now - last.when

    def _to_the_end(self, life: Life) -> None:
        """No more kills: the command is repeated until it is done and all has arrived."""
        if self._returns is not None:
            self._returns = None
            self.server.start()
        self.server.wait()
        for _ in range(5):
            while not life.over:
                self._watch()
            if life.process.returncode == 0 and self._arrived():
                break
            self._judge(life)
            life = self._life()
        else:
            self.story.losses.left.append(f"the command does not come to its end: {life.errors}")
        until = time.monotonic() + AGENTS
        while (left := working_in(self.place)) and time.monotonic() < until:
            time.sleep(POLL)
        losses = self.story.losses
        losses += compare(gather(self.place, self.scenario.name), self.wanted.evidence)
        losses.left += [f"process {process.pid}: {process.line}" for process in left]
        losses.left += leftovers(self.folder)

    def _arrived(self) -> bool:
        tracking = self.folder / "tracking"
        return (tracking / "spool.sent").read_text() == str((tracking / "spool.jsonl").stat().st_size)

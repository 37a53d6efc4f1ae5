"""What the story is played on: servers, nodes, a shared folder, and the command with a user's environment."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nodes import Network, Nodes
from servers import Bucket, Mlflow, Postgres

from saddlepoint.training import checkpoint
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows.folder import Folder

NAME = "digits-wgan"
EVERY = 100  # rounds between two evaluations, and checkpoints
PATIENCE = 900.0  # seconds for the whole sweep
SMALL = (
    "training.device=cpu",
    f"training.evaluate_every={EVERY}",
    "training.log_every=50",
    "training.batch_size=32",
    "networks.generator.widths=[16]",
    "networks.critic={factory: 'nets_of_mine:critic', width: 16}",
    "search.sampler=random",
    "search.pruner=none",
    "confirm.top=1",
    "confirm.draws=2",
)

OWN = """from saddlepoint.networks.mlp import Critic


def critic(sample_shape: tuple[int, ...], width: int) -> Critic:
    return Critic(sample_shape, widths=[width])
"""


class Saddle:
    """The command, in a folder and a home of its own, with the environment of a user of this cluster."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.place = place
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_", "SADDLE_"))}
        self.environment = {**clean, "HOME": str(place), **environment}

    def start(self, *words: str, **changes: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "saddlepoint", *words],
            cwd=self.place,
            env={**self.environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str, **changes: str) -> tuple[int, str, str]:
        with self.start(*words, **changes) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


class Cluster:
    """Servers, nodes, the shared folder, and the command beside them.

    bucket: checkpoints lie in one, and the folder is the head's alone, as far as that can be arranged here.
    """

    def __init__(
        self, place: Path, workers: int, stack: ExitStack, *, separate: bool = True, bucket: bool = False
    ) -> None:
        self.place, self.storage, token = place, place / "shared", secrets.token_hex(16)
        self.storage.mkdir()
        (place / "user").mkdir()
        (place / "user" / "nets_of_mine.py").write_text(OWN)  # which no node has, but for what the job brings
        self.network = Network(separate)
        stack.callback(self.network.close)
        self.postgres = Postgres(self.network.servers, self.network.mask)
        stack.callback(self.postgres.close)
        artifacts = (self.storage / "mlartifacts").as_uri()
        log = place / "mlflow.log"
        self.mlflow = Mlflow(self.network.servers, self.postgres.create("mlflow"), artifacts, log)
        stack.callback(self.mlflow.close)
        # The head leads the jobs and trains nothing, as in most clusters: to lose it is to lose them.
        hidden = self.storage if bucket and self.network.separate else None
        self.nodes = Nodes(self.network, place, token, cpus=[0] + [1] * workers, hidden=hidden)
        stack.callback(self.nodes.close)
        ledger = self.postgres.create("ledger").replace(f":{self.postgres.password}@", "@")
        self.sets = [word for change in (*SMALL, f"search.ledger={ledger}") for word in ("--set", change)]
        self.environment = {
            "RAY_AUTH_TOKEN": token,
            "RAY_API_SERVER_ADDRESS": self.nodes.dashboard,
            "MLFLOW_TRACKING_URI": self.mlflow.uri,
            "PGPASSWORD": self.postgres.password,
            "SADDLE_STORAGE": str(self.storage),
        }
        self.checkpoints = list[str]()
        if bucket:
            server = Bucket(self.network.servers, "saddle", place / "bucket.log")
            stack.callback(server.close)
            self.environment |= server.environment
            self.checkpoints = ["--checkpoints", "s3://saddle/trials"]
        self.saddle = Saddle(place / "user", self.environment)
        self.folder = self.storage / "sweeps" / NAME

    def submit(self, rounds: int, trials: int, seeds: int) -> list[str]:
        sets = ["--set", f"training.rounds={rounds}", "--set", f"confirm.seeds={seeds}"]
        return ["submit", NAME, *self.checkpoints, *self.sets, *sets, "--trials", str(trials)]

    @contextmanager
    def as_user(self) -> Iterator[None]:
        """The user's environment, and modules, for what is read in this process."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        sys.path.insert(0, str(self.saddle.place))
        try:
            yield
        finally:
            sys.path.remove(str(self.saddle.place))
            os.environ.clear()
            os.environ.update(before)

    def live(self) -> dict[str, int]:
        """The trials that have begun and not ended, with the newest round that the driver has heard of."""
        spool, found = self.folder / "tracking" / "spool.jsonl", dict[str, int]()
        text = spool.read_text() if spool.exists() else ""
        for line in text.rpartition("\n")[0].splitlines():  # the last may be half written
            event = json.loads(line)
            if event["run"].startswith("trial-"):
                number = event["run"][-4:]
                if event["kind"] == "finish":
                    found.pop(number, None)
                elif event["kind"] in ("start", "log"):
                    found[number] = event.get("step", found.get(number, 0))
        return found

    def saved(self) -> dict[str, int]:
        """The trials that have a checkpoint, with its round."""
        with self.as_user():
            paths = list(Folder(self.folder).trials("trial").rglob(CHECKPOINT)) if self.folder.is_dir() else []
            states = {path.parent.name: checkpoint.load(path) for path in paths}
        return {number: int(state["round"]) for number, state in states.items() if state is not None}

"""A sweep on a real cluster of several nodes, from `saddle submit` to a promoted model, while a node is killed.

    python benchmarks/cluster [--workers 2] [--trials 9] [--rounds 2000]

The nodes are `ray start` processes with token authentication, each in a network namespace of its own where one may make
them; MLflow's store and the ledger are two databases of one PostgreSQL server, artifacts lie in a folder that all nodes
see. Everything is started here, and ended again by its process id. Exit code 1: something was lost, doubled, or let in.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nodes import Network, Node, Nodes
from servers import Mlflow, Postgres

from saddlepoint.spec import Pipeline
from saddlepoint.tracking import query, registry
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.generate import load
from saddlepoint.workflows.sweep import open_ledger

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


@dataclass
class Checks:
    """What was looked at, in order, with what was seen."""

    rows: list[tuple[str, bool, str]] = field(default_factory=list)

    def __call__(self, what: str, good: bool, seen: object = "") -> None:
        self.rows.append((what, good, str(seen)))
        print(f"{'PASS' if good else 'FAIL'}  {what}  {seen}", flush=True)

    @property
    def passed(self) -> bool:
        return all(good for _, good, _ in self.rows)

    def table(self) -> str:
        lines = [f"| {what} | {'PASS' if good else '**FAIL**'} | {seen} |" for what, good, seen in self.rows]
        return "\n".join(["| checked | | seen |", "|---|---|---|", *lines])


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
    """Servers, nodes, the shared folder, and the command beside them."""

    def __init__(self, place: Path, workers: int, stack: ExitStack, *, separate: bool = True) -> None:
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
        self.nodes = Nodes(self.network, place, token, cpus=[0] + [1] * workers)
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
        self.saddle = Saddle(place / "user", self.environment)
        self.folder = self.storage / "sweeps" / NAME

    def submit(self, rounds: int, trials: int, seeds: int) -> list[str]:
        sets = ["--set", f"training.rounds={rounds}", "--set", f"confirm.seeds={seeds}"]
        return ["submit", NAME, *self.sets, *sets, "--trials", str(trials)]

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

    def checkpoints(self) -> dict[str, float]:
        """When each trial that is not over has written its checkpoint."""
        return {path.parent.name: path.stat().st_mtime for path in self.folder.glob(f"trials/*/{CHECKPOINT}")}


def wait(what: str, ready: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise RuntimeError(f"{what}: the command has ended with {process.returncode}: {out[-2000:]} {err}")
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: nothing in {PATIENCE:.0f} s")
        time.sleep(0.2)


def strangers(cluster: Cluster, submit: list[str], check: Checks) -> None:
    for what, changes, word in (
        ("without a token", {"RAY_AUTH_TOKEN": ""}, "set RAY_AUTH_TOKEN"),
        ("with a wrong one", {"RAY_AUTH_TOKEN": "wrong"}, "another token"),
    ):
        code, _, err = cluster.saddle(*submit, **changes)
        check(f"submit {what} is refused", code == 2 and err.count("\n") == 1 and word in err, err.strip())


def lose_a_node(cluster: Cluster, job: "subprocess.Popen[str]", rounds: int, check: Checks) -> set[str]:
    """Kills a worker node when every trial that runs is in its midst, and has a checkpoint. Returns those trials."""
    began = time.time()

    def in_the_midst() -> bool:
        live, fresh = cluster.live(), {number for number, at in cluster.checkpoints().items() if at > began}
        return bool(live) and live.keys() <= fresh and max(live.values()) <= rounds - 3 * EVERY

    wait("trials in the midst", in_the_midst, job)
    victim, live = busiest(cluster.nodes.nodes[1:]), cluster.live()
    count = len(victim.pids())
    victim.kill()
    check("a worker node is killed in mid-sweep", True,
          f"{victim.name}, {victim.address}, {count} processes; trials by round: {live}")  # fmt: skip
    return set(live)


def busiest(nodes: list[Node]) -> Node:
    """Where something is trained: the node that used most of the processors' time for a moment."""
    before = [node.ticks() for node in nodes]
    time.sleep(0.3)
    return max(zip(nodes, before, strict=True), key=lambda pair: pair[0].ticks() - pair[1])[0]


def stop_and_go_on(cluster: Cluster, submit: list[str], check: Checks) -> None:
    code, out, err = cluster.saddle(*submit, "--detach", "--json")
    if code:
        raise RuntimeError(err)
    job = json.loads(out)["job"]
    wait("the first checkpoint", lambda: bool(cluster.checkpoints()))
    code, out, _ = cluster.saddle(*submit)
    said = [line for line in out.splitlines() if "another command is working" in line]
    check("a second job on a live sweep is refused", code == 1 and len(said) == 1, *said)
    code, out, _ = cluster.saddle("stop", job, "--json")
    check("saddle stop", code == 0 and json.loads(out)["status"] == "STOPPED", job)
    with cluster.as_user():
        check("a stopped sweep has no RUNNING run", not running(), running())
    code, out, _ = cluster.saddle("jobs", "--json")
    check("saddle jobs knows it", code == 0 and job in [each["id"] for each in json.loads(out)])
    code, _, err = cluster.saddle("status", job[:-1] + "x")
    check("an unknown job is told from the nearest", code == 2 and job in err, err.strip())


def running() -> list[str]:
    runs = query.sweeps(None)
    return [run.key for sweep in runs for run in [sweep, *query.children(None, sweep.sweep)] if run.status == "RUNNING"]


def evidence(cluster: Cluster, trials: int, rounds: int, alive: set[str], check: Checks) -> None:
    """What ledger, tracking store, registry and storage hold when all is done."""
    folder = Folder(cluster.folder)
    pipeline = folder.pipeline()
    records = open_ledger(pipeline, folder).trials()
    numbers = [record.number for record in records]
    check("trials in the ledger, each number once", sorted(numbers) == list(range(trials)), numbers)
    states = Counter(record.state for record in records)
    check("all trials are complete", states == {"complete": trials}, dict(states))
    lost = {f"{record.number:04d}": record.attrs["lost"] for record in records if "lost" in record.attrs}
    check("trials of the lost node went on elsewhere", bool(lost) and set(lost) <= alive, f"{lost} of {sorted(alive)}")
    curve = list(range(EVERY, rounds + 1, EVERY))
    odd = [record.number for record in records if list(record.intermediate) != curve]
    check("no evaluation is missing in the ledger", not odd, odd if odd else f"{len(curve)} of each trial")

    (parent,) = query.sweeps(None)
    children = query.children(None, parent.sweep)
    keys = Counter(run.key for run in children)
    retrained = (pipeline.confirm.top + 1) * pipeline.confirm.seeds
    wanted = {f"trial-{number:04d}" for number in range(trials)}
    wanted |= {f"confirm-{number:04d}" for number in range(retrained)}
    check("one MLflow run for each", set(keys) == wanted and set(keys.values()) == {1}, f"{len(children)} runs")
    check("no run is RUNNING", not running() and parent.status == "FINISHED", parent.status)
    faults = list(points(children, pipeline, rounds))
    check("no hole and no doubled point in the histories", not faults, "; ".join(faults[:3]) or "all steps once")
    tagged = {run.key[-4:] for run in children if "saddle.lost" in run.tags}
    check("the runs say which trials lost their worker", tagged == set(lost), sorted(tagged))

    version = registry.reigning(None, "digits-generator", "champion")
    samples = load("models:/digits-generator@champion").sample(16)
    check("the champion is set, and loads", tuple(samples.shape) == (16, 1, 8, 8), f"version {version.version}")
    waste = [path.name for path in cluster.folder.rglob("*") if path.name == CHECKPOINT or ".gone-" in path.name]
    check("no checkpoint is left", not waste, waste)


def points(runs: list[query.TrackedRun], pipeline: Pipeline, rounds: int) -> Iterator[str]:
    """What is wrong with the histories: every log at each log_every-th round, every score at each evaluation, once."""
    logs = list(range(pipeline.training.log_every, rounds + 1, pipeline.training.log_every))
    scores = list(range(EVERY, rounds + 1, EVERY))
    for run in runs:
        seen = {metric: [step for step, _ in query.history(None, run.run_id, metric)] for metric in run.metrics}
        whole = {metric: steps for metric, steps in seen.items() if "final" not in metric}
        if "fid" not in whole or not any(steps == logs for steps in whole.values()):
            yield f"{run.key} has no history of its score, or of its losses"
        for metric, steps in whole.items():
            if steps not in (logs, scores):
                yield f"{run.key} {metric} has {len(steps)} points, {len(set(steps))} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep on a real cluster, of which a node is killed.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=2000, help="of a trial; a multiple of 100")
    parser.add_argument("--no-namespaces", action="store_true", help="all nodes on 127.0.0.1")
    chosen = parser.parse_args()
    check = run(chosen.workers, chosen.trials, chosen.rounds, separate=not chosen.no_namespaces)
    print(f"\n{check.table()}")
    sys.exit(0 if check.passed else 1)


def run(workers: int, trials: int, rounds: int, *, separate: bool = True, whole: bool = True) -> Checks:
    """The story. whole: also who is not let in, a job that is stopped, a second one beside it, and one after all."""
    check, began = Checks(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sdl", dir="/tmp") as folder, ExitStack() as stack:  # short, for sockets
        cluster = Cluster(Path(folder), workers, stack, separate=separate)
        kind = f"{workers + 1} nodes, " + ("a network namespace each" if cluster.network.separate else "on loopback")
        check("the cluster is up", True, f"{kind}, {time.monotonic() - began:.0f} s")
        submit = cluster.submit(rounds, trials, seeds=2 if whole else 1)
        if whole:
            strangers(cluster, submit, check)
            stop_and_go_on(cluster, submit, check)
        with cluster.saddle.start(*submit) as job:
            alive = lose_a_node(cluster, job, rounds, check)
            struck = time.monotonic()
            out, err = job.communicate(timeout=PATIENCE)
        check("the job succeeds", job.returncode == 0, f"{time.monotonic() - struck:.0f} s after the kill {err}")
        if job.returncode:
            print(out[-5000:], (cluster.folder / "sweep.log").read_text()[-5000:])
            return check
        check("its end is shown", "is now champion" in out, out.strip().splitlines()[-2:])
        with cluster.as_user():
            evidence(cluster, trials, rounds, alive, check)
        if whole:
            code, out, err = cluster.saddle(*submit)
            check("submitted once more it does nothing", code == 0 and "champion already" in out, err)
            with cluster.as_user():
                evidence(cluster, trials, rounds, alive, Checks())
        leaked = secret_in_files(cluster)
        check("no file of ours holds a secret", not leaked, leaked)
    return check


def secret_in_files(cluster: Cluster) -> list[str]:
    """Files of the sweep, and of what was submitted, that hold a password."""
    words = [cluster.postgres.password.encode(), cluster.environment["RAY_AUTH_TOKEN"].encode()]
    places = [cluster.storage, *cluster.place.glob("*/session_*/runtime_resources")]
    found = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path.name for path in found if any(word in path.read_bytes() for word in words)]


if __name__ == "__main__":
    main()

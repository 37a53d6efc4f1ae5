"""What ledger, tracking store, registry and storage hold at the end, and whether it is what it should be."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from stage import EVERY, Cluster

from saddlepoint.search.records import TrialRecord
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import query, registry
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows.folder import Folder
from saddlepoint.workflows.generate import load
from saddlepoint.workflows.sweep import open_ledger

WASTE = re.compile(rf"^{re.escape(CHECKPOINT)}$|\.gone-")


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


@dataclass(frozen=True)
class Loss:
    """A node that was killed, and of the trials that were live then the rounds of their checkpoints."""

    address: str
    checkpoints: dict[str, int]


def running() -> list[str]:
    runs = query.sweeps(None)
    return [run.key for sweep in runs for run in [sweep, *query.children(None, sweep.sweep)] if run.status == "RUNNING"]


def evidence(cluster: Cluster, trials: int, rounds: int, loss: Loss, check: Checks) -> None:
    """What ledger, tracking store, registry and storage hold when all is done."""
    folder = Folder(cluster.folder)
    pipeline = folder.pipeline()
    records = open_ledger(pipeline, folder).trials()
    numbers = [record.number for record in records]
    check("trials in the ledger, each number once", sorted(numbers) == list(range(trials)), numbers)
    states = Counter(record.state for record in records)
    check("all trials are complete", states == {"complete": trials}, dict(states))
    lost = {f"{record.number:04d}": record for record in records if "lost" in record.attrs}
    live = sorted(loss.checkpoints)
    check("trials of the lost node went on", bool(lost) and set(lost) <= set(live), f"{sorted(lost)} of {live}")
    odd = [number for number in lost if not from_its_checkpoint(lost[number], loss)]
    check("each from its checkpoint", not odd, "; ".join(went_on(lost[number], loss) for number in lost))
    if cluster.network.separate:
        odd = [number for number, record in lost.items() if not elsewhere(record, loss)]
        ways = {number: " then ".join(record.attrs["nodes"]) for number, record in lost.items()}
        check("each on another node", not odd, ways)
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
    places = [cluster.folder, folder.trials("trial"), folder.trials("confirm")]
    waste = [path.name for place in places for path in place.rglob("*") if WASTE.search(path.name)]
    check("no checkpoint is left", not waste, waste)


def from_its_checkpoint(record: TrialRecord, loss: Loss) -> bool:
    """The first report after the loss is that of the evaluation after the checkpoint; from scratch, it would be that of
    the first evaluation."""
    saved = loss.checkpoints.get(f"{record.number:04d}", 0)
    return saved >= EVERY and record.attrs.get("went_on") == [saved + EVERY]


def went_on(record: TrialRecord, loss: Loss) -> str:
    number = f"{record.number:04d}"
    return f"{number} of round {loss.checkpoints.get(number)}, heard of again at {record.attrs.get('went_on')}"


def elsewhere(record: TrialRecord, loss: Loss) -> bool:
    before, after = record.attrs["nodes"][-2:]
    return bool(before == loss.address != after)


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


def secret_in_files(cluster: Cluster) -> list[str]:
    """Files of the sweep, and of what was submitted, that hold a password."""
    secrets = [cluster.environment.get(name) for name in ("PGPASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY")]
    words = [secret.encode() for secret in secrets if secret]
    places = [cluster.storage, *cluster.place.glob("*/session_*/runtime_resources")]
    found = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path.name for path in found if any(word in path.read_bytes() for word in words)]

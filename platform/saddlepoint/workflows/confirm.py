"""Evidence: the best few configurations, and the published defaults, retrained at full length on fresh seeds.

The retrainings stand in a ledger of their own (study NAME.confirm), so they survive a crash as trials do.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..errors import SaddleError
from ..metrics.catalogue import METRICS
from ..randomness import derive
from ..search.records import TrialRecord
from .sweep import Sweep, open_ledger

DEFAULTS = "published defaults"


@dataclass(frozen=True)
class Candidate:
    """One configuration and what its retrainings scored."""

    name: str
    values: dict[str, Any]
    scores: list[dict[str, float]]  # one for each seed that completed
    folders: list[Path]  # beside each, where its generator lies
    keys: list[str]  # and its run
    failures: list[str]

    def mean(self, metric: str) -> float:
        return fmean(score[metric] for score in self.scores)

    def spread(self, metric: str) -> float:
        """The sample standard deviation over seeds; 0 for a single one."""
        return stdev(score[metric] for score in self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class Confirmation:
    metric: str
    seeds: int
    floor: dict[str, float]
    candidates: list[Candidate]  # best first; those without a complete seed last

    @property
    def winner(self) -> Candidate:
        best = self.candidates[0]
        if not best.scores:
            raise SaddleError(
                f"no configuration could be confirmed: {best.failures[0] if best.failures else 'none ran'}"
            )
        return best


def confirm(sweep: Sweep) -> Confirmation:
    """Retrains what the ledger ranks first. Raises SaddleError if the sweep has no complete trial."""
    pipeline, wanted = sweep.pipeline, sweep.pipeline.confirm
    metric = METRICS[pipeline.objective.metric]
    complete = [trial for trial in sweep.ledger.trials() if trial.state == "complete" and trial.value is not None]
    if not complete:
        raise SaddleError(f"the sweep {sweep.folder.name!r} has no complete trial to confirm; "
                          f"see why: saddle show {sweep.folder.name}")  # fmt: skip
    complete.sort(key=lambda trial: metric.badness(trial.value or 0.0))
    published = sweep.search.space.defaults()
    configurations = {
        f"trial {trial.number}": trial.values for trial in complete[: wanted.top] if trial.values != published
    }
    configurations[DEFAULTS] = published
    ledger = open_ledger(pipeline, sweep.folder, f"{sweep.folder.name}.confirm", sampler="random", pruner="none")
    seeds = [derive(pipeline.seed, "confirm", index) for index in range(wanted.seeds)]
    for values in configurations.values():
        for seed in seeds:
            ledger.enqueue(values, seed=seed)
    sweep.run(ledger, kind="confirm", limit=len(ledger.trials()))
    records = ledger.trials()
    candidates = [
        _candidate(sweep, name, values, [r for r in records if r.values == values and r.seed in seeds])
        for name, values in configurations.items()
    ]
    candidates.sort(key=lambda c: metric.badness(c.mean(metric.name)) if c.scores else float("inf"))
    result = Confirmation(metric.name, wanted.seeds, sweep.shared.scorer.floor(), candidates)
    _tell(sweep, result)
    return result


def _tell(sweep: Sweep, result: Confirmation) -> None:
    """On the parent run: the objective of each configuration as a metric, the whole evidence as a file."""
    means = {}
    for place, candidate in enumerate(result.candidates, start=1):
        name = "defaults" if candidate.name == DEFAULTS else f"place_{place}"
        if candidate.scores:
            means[f"confirm/{result.metric}_{name}"] = candidate.mean(result.metric)
    sweep.tracker.log("sweep", len(sweep.ledger.trials()), means)
    sweep.tracker.artifact("sweep", "confirmation.json", json.dumps(asdict(result), default=str, indent=2))


def _candidate(sweep: Sweep, name: str, values: dict[str, Any], records: list[TrialRecord]) -> Candidate:
    done = [record for record in records if record.state == "complete"]
    return Candidate(
        name=name,
        values=values,
        scores=[record.attrs["final"] for record in done],
        folders=[sweep.folder.trial("confirm", record.number) for record in done],
        keys=[f"confirm-{record.number:04d}" for record in done],
        failures=[record.reason or record.state for record in records if record.state != "complete"],
    )

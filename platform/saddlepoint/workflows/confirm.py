"""Evidence: the best few configurations, and the published defaults, retrained at full length on fresh seeds.

The retrainings stand in a ledger of their own (study NAME.confirm), so they survive a crash as trials do. Each one's
generator is then scored over several draws (`evidence.py`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import dist, fsum
from typing import Any

from ..errors import SaddleError
from ..files import write_text
from ..metrics.objective import Objective
from ..randomness import derive
from ..remote import Place
from ..search.population import Schedule
from ..search.records import TrialRecord
from .evidence import Estimate, Scores, estimates, judged, means, remembered
from .generations import SCHEDULE, population_of
from .sweep import Sweep, open_ledger

DEFAULTS = "published defaults"
CONFIRMATION = "confirmation.json"  # in the sweep's folder, and among the artifacts of its parent run


@dataclass(frozen=True)
class Configuration:
    """What is to be retrained. schedule: of a population, the values along the line to this trial; `values` are the
    last of them."""

    name: str
    values: dict[str, Any]
    seeds: list[int]
    schedule: Schedule = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """One configuration and what its retrainings scored. The lists are in the order of the seeds that completed."""

    name: str
    values: dict[str, Any]
    seeds: list[int]
    scores: list[Scores]  # each the mean over draws; what is costly has the one draw of the training's end
    estimates: dict[str, Estimate]  # of each metric over the seeds
    feasible: bool  # by the means, within all bounds
    folders: list[Place]  # where each seed's generator lies
    keys: list[str]  # and its run
    failures: list[str]  # why the other seeds have none
    schedule: Schedule = field(default_factory=list)  # [] if its values are the same from the first round to the last

    def mean(self, metric: str) -> float:
        return self.estimates[metric].mean


@dataclass(frozen=True)
class Confirmation:
    """The evidence, best first (`ranked`).

    winner: what there is to promote. It is within all bounds if any configuration is; `promote` refuses it otherwise.
    """

    metric: str
    second: str | None
    seeds: int
    draws: int  # behind each score
    confidence: float  # of every interval
    bounds: list[str]
    floor: Scores
    candidates: list[Candidate]

    @property
    def winner(self) -> Candidate:
        """Raises SaddleError if no retraining completed."""
        best = self.candidates[0]
        if not best.scores:
            raise SaddleError(
                f"no configuration could be confirmed: {best.failures[0] if best.failures else 'none ran'}"
            )
        return best


def confirm(sweep: Sweep) -> Confirmation:
    """Retrains what the ledger ranks first. Raises SaddleError if no trial is complete and within all bounds."""
    pipeline, wanted = sweep.pipeline, sweep.pipeline.confirm
    objective = pipeline.objective.built()
    configurations = _configurations(sweep, objective)
    ledger = open_ledger(pipeline, sweep.folder, f"{sweep.folder.name}.confirm", sampler="random", pruner="none")
    for wants in configurations:
        for seed in wants.seeds:
            ledger.enqueue(wants.values, seed=seed, attrs={SCHEDULE: wants.schedule} if wants.schedule else None)
    sweep.run(ledger, kind="confirm", limit=len(ledger.trials()))
    records = ledger.trials()
    candidates = [
        _candidate(sweep, objective, wants, [r for r in records if r.values == wants.values and r.seed in wants.seeds])
        for wants in configurations
    ]
    result = Confirmation(
        metric=objective.metric.name,
        second=pipeline.objective.second,
        seeds=wanted.seeds,
        draws=wanted.draws,
        confidence=wanted.confidence,
        bounds=[str(bound) for bound in objective.bounds],
        floor=sweep.shared.scorer.floor(),
        candidates=ranked(candidates, objective),
    )
    _tell(sweep, result)
    return result


def _configurations(sweep: Sweep, objective: Objective) -> list[Configuration]:
    """The best few of the ledger, then the published defaults."""
    pipeline, wanted, published = sweep.pipeline, sweep.pipeline.confirm, sweep.search.space.defaults()
    feasible, population = _feasible(sweep, objective), population_of(pipeline)
    lines: dict[int, Schedule] = {}
    if population is None:
        best = chosen(feasible, objective, wanted.top)
    else:
        trials = sweep.ledger.trials()
        best = population.finalists(trials, feasible)[: wanted.top]
        lines = {trial.number: population.schedule(trials, trial.number) for trial in best}

    def seeds(*purpose: str | int) -> list[int]:
        return [derive(pipeline.seed, "confirm", index, *purpose) for index in range(wanted.seeds)]

    found = []
    for trial in best:
        name, line = f"trial {trial.number}", lines.get(trial.number, [])
        if len(line) > 1:  # with seeds of its own: another schedule may end in the same values
            name += f" (a schedule of {len(line)} pieces)"
            found.append(Configuration(name, trial.values, seeds("trial", trial.number), line))
        elif trial.values != published:
            found.append(Configuration(name, trial.values, seeds()))
    return [*found, Configuration(DEFAULTS, published, seeds())]


def chosen(trials: Sequence[TrialRecord], objective: Objective, top: int) -> list[TrialRecord]:
    """The best `top` of feasible trials, each configuration once.

    By the metric; of two metrics, from the Pareto front, spread over it, then from the front of the rest.
    """
    rest = list({json.dumps(trial.values, sort_keys=True): trial for trial in reversed(trials)}.values())[::-1]
    if objective.second is None:
        return sorted(rest, key=lambda trial: objective.key(trial.scores))[:top]
    found: list[TrialRecord] = []
    while rest and len(found) < top:
        front = [rest[i] for i in objective.front([trial.scores for trial in rest])]
        found += spread(front, [objective.badness(trial.scores) for trial in front], top - len(found))
        rest = [trial for trial in rest if trial not in front]
    return found


def spread(front: Sequence[TrialRecord], places: Sequence[tuple[float, ...]], count: int) -> list[TrialRecord]:
    """The first of a front, then again and again the one that is farthest from those taken (Gonzalez 1985,
    "Clustering to minimize the maximum intercluster distance"), each metric scaled to the front's extent."""
    lows, highs = (list(map(end, zip(*places, strict=True))) for end in (min, max))
    scaled = [
        tuple((x - low) / ((high - low) or 1.0) for x, low, high in zip(place, lows, highs, strict=True))
        for place in places
    ]
    taken = [0]
    while len(taken) < min(count, len(front)):
        left = [i for i in range(len(front)) if i not in taken]
        taken.append(max(left, key=lambda i: min(dist(scaled[i], scaled[j]) for j in taken)))
    return [front[i] for i in taken]


def ranked(candidates: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """Best first: within the bounds before outside, then by the mean of the metric; what never completed last.

    By the mean and not by the pessimistic end of the interval: with three seeds the width of an interval is mostly
    chance, and choosing by it mostly chooses a lucky spread. In a simulation (4 configurations whose true means differ
    by 2, seeds by about 1, 40,000 times) the choice by the mean of 3 seeds lost 0.14 to the truly best one, that by
    the upper end 0.45; with a quarter of them failing on 30 % of their seeds 5.3 and 5.6, the best seed alone 11.6.
    A seed that failed counts as the worst score of any retraining: to drop it would reward what fails.
    """
    worst = max((objective.badness(score)[0] for c in candidates for score in c.scores), default=0.0)

    def key(candidate: Candidate) -> tuple[bool, float, float]:
        if not candidate.scores:
            return True, 0.0, 0.0
        violation = objective.violation({name: candidate.mean(name) for name in objective.names})
        bad = [objective.badness(score)[0] for score in candidate.scores] + [worst] * len(candidate.failures)
        return False, violation, fsum(bad) / len(bad)

    return sorted(candidates, key=key)


def _feasible(sweep: Sweep, objective: Objective) -> list[TrialRecord]:
    complete = [trial for trial in sweep.ledger.trials() if trial.state == "complete"]
    if not complete:
        raise SaddleError(f"the sweep {sweep.folder.name!r} has no complete trial to confirm; "
                          f"see why: saddle show {sweep.folder.name}")  # fmt: skip
    feasible = [trial for trial in complete if objective.feasible(trial.scores)]
    if not feasible:
        nearest = min(complete, key=lambda trial: objective.key(trial.scores))
        raise SaddleError(f"the sweep {sweep.folder.name!r} has no trial to confirm that keeps its bounds; "
                          f"nearest is trial {nearest.number}: {broken(objective, nearest.scores)}")  # fmt: skip
    return feasible


def broken(objective: Objective, scores: Scores) -> str:
    """Which bounds the scores do not keep: "recall 0.31 violates recall >= 0.5"; "" if they keep all."""
    violated = objective.violations(scores)
    return ", ".join(
        f"{bound.metric} {scores[bound.metric]:.4g} violates {bound}"
        for bound in objective.bounds
        if bound.metric in violated
    )


def _candidate(sweep: Sweep, objective: Objective, wants: Configuration, records: list[TrialRecord]) -> Candidate:
    done = [record for record in records if record.state == "complete"]
    folders = [sweep.folder.trial("confirm", record.number) for record in done]
    names, wanted = judged(sweep.shared, objective), sweep.pipeline.confirm
    scores = [
        record.attrs["final"] | means(remembered(folder, sweep.shared, names, wanted.draws))
        for record, folder in zip(done, folders, strict=True)
    ]
    over_seeds = estimates(scores, wanted.confidence)
    return Candidate(
        name=wants.name,
        values=wants.values,
        seeds=[record.seed for record in done],
        scores=scores,
        estimates=over_seeds,
        feasible=bool(scores) and objective.feasible({metric: each.mean for metric, each in over_seeds.items()}),
        folders=folders,
        keys=[f"confirm-{record.number:04d}" for record in done],
        failures=[record.reason or record.state for record in records if record.state != "complete"],
        schedule=wants.schedule,
    )


def _tell(sweep: Sweep, result: Confirmation) -> None:
    """On the parent run: the objective of each configuration as a metric; the whole as a file, there and here."""
    found = {}
    for place, candidate in enumerate(result.candidates, start=1):
        name = "defaults" if candidate.name == DEFAULTS else f"place_{place}"
        if candidate.scores:
            found[f"confirm/{result.metric}_{name}"] = candidate.mean(result.metric)
    text = json.dumps(asdict(result), default=str, indent=2)
    write_text(sweep.folder.path / CONFIRMATION, text)
    sweep.tracker.log("sweep", len(sweep.ledger.trials()), found)
    sweep.tracker.artifact("sweep", CONFIRMATION, text)

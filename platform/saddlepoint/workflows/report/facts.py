"""What a report says in words and numbers, from the ledger's records alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any

from ...metrics.catalogue import Metric
from ...metrics.objective import Objective
from ...search.importance import places
from ...search.ink import STATES, last_seen, number
from ...search.population import BEGINS
from ...search.pruners import rungs
from ...search.records import Outcome, TrialRecord
from ...spec import Pipeline, SearchSpec

BAD = (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.FAILED)

ENDED = {  # what became of the published defaults
    Outcome.PRUNED: "were pruned",
    Outcome.DIVERGED: "diverged",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.FAILED: "failed",
    Outcome.DUPLICATE: "were not run again",
    "running": "are running",
    "waiting": "are waiting",
}


@dataclass(frozen=True)
class Rung:
    round: int
    reached: int  # trials
    stopped: int  # of those, pruned before the next rung


@dataclass(frozen=True)
class Effort:
    """spent: rounds of all trials. saved: what the pruned ones had left to go."""

    spent: int
    saved: int
    rungs: list[Rung]

    @property
    def share(self) -> float:
        """Of the rounds that the same trials would have taken at full length, those that were saved."""
        return self.saved / ((self.spent + self.saved) or 1)


@dataclass(frozen=True)
class Failure:
    """Trials of one class that say the same, numbers aside."""

    state: str
    reason: str  # the first one's
    trials: list[int]


@dataclass(frozen=True)
class Facts:
    records: list[TrialRecord]
    inside: list[TrialRecord]  # the space as it is now; what follows is about these, but counts, effort and failures
    objective: Objective
    counts: dict[str, int]  # by state, those that occur
    best: TrialRecord | None  # of two metrics, the best by the first
    top: list[TrialRecord]  # complete, best first; with two metrics the Pareto front first
    front: list[TrialRecord]  # with two metrics; else empty
    published: TrialRecord | None  # the trial of the defaults; the complete one if several are
    places: dict[int, int]
    effort: Effort
    failures: list[Failure]
    seconds: float  # of training, all trials together
    first: datetime | None
    last: datetime | None


def gather(records: Sequence[TrialRecord], pipeline: Pipeline, search: SearchSpec) -> Facts:
    objective = pipeline.objective.built()
    inside = [record for record in records if record.inside]
    complete = [record for record in inside if record.state == Outcome.COMPLETE]
    place = places(inside, objective)
    front = []
    if objective.second is not None:
        front = [complete[i] for i in objective.front([record.scores for record in complete])]
    rest = sorted((r for r in complete if r not in front), key=lambda r: (place[r.number], r.number))
    top = [*front, *rest]
    defaults = search.space.defaults()
    moments = [moment for r in records for moment in (r.started, r.ended) if moment is not None]
    return Facts(
        records=list(records),
        inside=inside,
        objective=objective,
        counts={str(state): n for state in STATES if (n := sum(r.state == state for r in records))},
        best=top[0] if top and top[0].feasible else None,
        top=top,
        front=front,
        published=next((r for r in [*complete, *inside] if r.values == defaults), None),
        places=place,
        effort=effort(records, pipeline.training.rounds, decisions(pipeline, search)),
        failures=failures(records),
        seconds=sum(float(record.attrs.get("seconds", 0)) for record in records),
        first=min(moments, default=None),
        last=max(moments, default=None),
    )


def decisions(pipeline: Pipeline, search: SearchSpec) -> list[int]:
    """The rungs: rounds at which a trial may be stopped; [] where it is at every evaluation, or never."""
    return rungs(search.pruner, rounds=pipeline.training.rounds, first=search.min_rounds, eta=search.eta)


def reached(record: TrialRecord, rounds: int) -> int:
    """The round that it has come to, as far as was reported; `rounds`: of a complete one that reported none."""
    return max(record.intermediate, default=rounds if record.state == Outcome.COMPLETE else 0)


def effort(records: Sequence[TrialRecord], rounds: int, rungs: Sequence[int]) -> Effort:
    came = [reached(record, rounds) for record in records]
    stopped = [reached(record, rounds) for record in records if record.state == Outcome.PRUNED]
    return Effort(
        spent=sum(at - record.attrs.get(BEGINS, 0) for at, record in zip(came, records, strict=True)),
        saved=sum(max(0, rounds - at) for at in stopped),
        rungs=[
            Rung(rung, sum(at >= rung for at in came), sum(rung <= at < following for at in stopped))
            for rung, following in zip(rungs, [*rungs, inf][1:], strict=True)
        ],
    )


def failures(records: Sequence[TrialRecord]) -> list[Failure]:
    """By class, then by how many trials say the same."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if record.state in BAD:
            groups.setdefault((record.state, re.sub(r"\d[\d.e+-]*", "#", record.reason or "")), []).append(record)
    found = [
        Failure(state, members[0].reason or "no reason was noted", [record.number for record in members])
        for (state, _), members in groups.items()
    ]
    return sorted(found, key=lambda each: (BAD.index(Outcome(each.state)), -len(each.trials)))


def verdict(facts: Facts, floor: Mapping[str, float]) -> str:
    """The best so far against the published defaults and the floor, in one sentence."""
    metric = facts.objective.metric
    if not facts.records:
        return "No trial has begun."
    if facts.best is None:
        if facts.top:
            bounds = " and ".join(map(str, facts.objective.bounds))
            scores = ", ".join(f"{name} {number(facts.top[0].scores[name])}" for name in facts.objective.names)
            return f"No complete trial keeps {bounds}; nearest is trial {facts.top[0].number} with {scores}."
        return "No trial is complete yet."
    best = facts.best.scores[metric.name]
    if facts.front:
        both = " and ".join(f"{m.name} {number(facts.best.scores[m.name])}" for m in facts.objective.metrics)
        many = "1 trial lies" if len(facts.front) == 1 else f"{len(facts.front)} trials lie"
        return f"{many} on the Pareto front; best by {metric.name} is trial {facts.best.number}, {both}."
    said = f"Best so far: {metric.name} {number(best)}, trial {facts.best.number}"
    if facts.published is facts.best:
        said += ", with the published defaults"
    elif facts.published is not None:
        said += f"; the published defaults {_came_to(facts.published, metric)}"
    if metric.name not in floor:
        return said + "."
    said += f"; the floor, which is real data, {number(floor[metric.name])}"
    if facts.published is not None and facts.published is not facts.best and facts.published.scores:
        start, end = facts.published.scores[metric.name], floor[metric.name]
        if metric.is_better(best, start) and metric.is_better(end, start):
            said += f": {100 * (start - best) / (start - end):.0f} % of the way from the one to the other"
    return said + "."


def _came_to(record: TrialRecord, metric: Metric) -> str:
    if record.scores:
        return number(record.scores[metric.name])
    value = last_seen(record, metric)
    return ENDED[record.state] + (
        "" if value is None else f", with {number(value)} at round {max(record.intermediate):,}"
    )


def searched(pipeline: Pipeline, search: SearchSpec, objective: Objective) -> list[tuple[str, str]]:
    """What was searched, as terms and their values."""
    goal = " and ".join(f"{metric.name} ({metric.better} is better)" for metric in objective.metrics)
    if objective.bounds:
        goal += f", subject to {' and '.join(map(str, objective.bounds))}"
    stops = ", ".join(map(str, decisions(pipeline, search)))
    pruner = search.pruner.replace("_", " ")
    budget = {
        "trials": f"{search.trials:,} trials",
        "rounds": search.budget.rounds and f"{search.budget.rounds:,} rounds",
        "hours": search.budget.hours and f"{search.budget.hours:g} h by the clock",
        "gpu_hours": search.budget.gpu_hours and f"{search.budget.gpu_hours:g} GPU-hours",
    }
    seeds = f", {search.seeds} seeds a trial" if search.seeds > 1 else ""
    how = [("sampler", search.sampler), ("pruner", f"{pruner}, at rounds {stops}" if stops else pruner)]
    if search.population is not None:
        how = [("population", f"{search.population.members} members, in pieces of {search.population.every:,} rounds")]
    return [
        ("game", pipeline.game.name),
        ("data", pipeline.data.name),
        ("objective", goal),
        ("a trial", f"{pipeline.training.rounds:,} rounds at full length{seeds}"),
        *how,
        ("budget", ", ".join(each for each in budget.values() if each)),
        ("seed", str(pipeline.seed)),
    ]


def duration(seconds: float) -> str:
    for unit, size in (("days", 172_800), ("h", 5_400), ("min", 90)):
        if seconds >= size:
            return f"{seconds / {'days': 86_400, 'h': 3_600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.1f} s"


def setting(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())

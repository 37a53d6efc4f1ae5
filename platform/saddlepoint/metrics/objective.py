"""What a search is for: one metric or two, under bounds on others. Here alone stands which of two results is better.

A single score selects what is good at that score: a generator that has lost modes may have the best FID of all.
A bound ("recall at least 0.5") makes such a result infeasible. As Deb (2000, "An efficient constraint handling method
for genetic algorithms") ranks them: a feasible result beats an infeasible one, of two infeasible ones that with the
smaller violation is better, of two feasible ones that with the better metric.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saddlepoint.metrics.catalogue import METRICS, Metric

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """A metric's value must lie within [at_least, at_most]."""

    metric: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def violation(self, value: float) -> float:
        """How far outside, relative to the bound itself; 0 inside, infinity for NaN."""
        if math.isnan(value):
            return math.inf
        for bound, beyond in ((self.at_least, self.at_least - value), (self.at_most, value - self.at_most)):
            if beyond > 0:
                return beyond / (abs(bound) or 1.0)
        return 0.0

    def __str__(self) -> str:
        parts = [f">= {self.at_least:g}"] if self.at_least > -math.inf else []
        parts += [f"<= {self.at_most:g}"] if self.at_most < math.inf else []
        return f"{self.metric} {' and '.join(parts)}"


@dataclass(frozen=True)
class Objective:
    """metric: what ranks results, and what generators within a training are chosen by. second: together with it spans
    a Pareto front. bounds: what every result must keep."""

    metric: Metric
    second: Metric | None = None
    bounds: tuple[Bound, ...] = ()

    @classmethod
    def of(cls, metric: str, second: str | None = None, *bounds: Bound) -> "Objective":
        return cls(METRICS[metric], METRICS[second] if second else None, bounds)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric,) if self.second is None else (self.metric, self.second)

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics that it looks at, each once: these are scored at every evaluation."""
        return tuple(dict.fromkeys([metric.name for metric in self.metrics] + [bound.metric for bound in self.bounds]))

    def violations(self, scores: Scores) -> dict[str, float]:
        """Of each bound that is not kept."""
        found = {bound.metric: bound.violation(scores[bound.metric]) for bound in self.bounds}
        return {name: value for name, value in found.items() if value > 0}

    def violation(self, scores: Scores) -> float:
        return sum(self.violations(scores).values())

    def feasible(self, scores: Scores) -> bool:
        return not self.violations(scores)

    def badness(self, scores: Scores) -> tuple[float, ...]:
        """One number for each metric, all to be minimised; infinity for NaN."""
        values = (metric.badness(scores[metric.name]) for metric in self.metrics)
        return tuple(math.inf if math.isnan(value) else value for value in values)

    def key(self, scores: Scores) -> tuple[float, float]:
        """What to sort by, best first, where one result is wanted: the violation, then the metric."""
        return self.violation(scores), self.badness(scores)[0]

    def is_better(self, scores: Scores, other: Scores) -> bool:
        return self.key(scores) < self.key(other)

    def front(self, results: Sequence[Scores]) -> list[int]:
        """The indices of the feasible results that no other feasible one dominates: as good in both metrics and
        better in one. Best by `metric` first; with one metric, all that share the best value."""
        bad = {i: self.badness(scores) for i, scores in enumerate(results) if self.feasible(scores)}
        on_front = [i for i in bad if not any(_dominates(bad[j], bad[i]) for j in bad)]
        return sorted(on_front, key=lambda i: bad[i])


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))

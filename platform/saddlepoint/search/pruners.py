"""Pruners by name: when a running trial is stopped because others did better with as many rounds.

A pruner is told every score, with the number of the trial and its round, and is asked before it is told the newest.
What it answers follows from these scores alone, so one that is told them again, after a restart, goes on as before.
All rank by `Objective`: whoever violates a bound comes behind all who do not, but is never stopped for that alone, as
what is violated early in a training may be kept at its end.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import takewhile
from statistics import median_high

from saddlepoint.errors import UserError, unknown
from saddlepoint.metrics.objective import Objective, Scores
from saddlepoint.randomness import derive
from saddlepoint.search.pareto import Point, fronts, spread


class Pruner:
    """Stops nobody."""

    def stops(self, number: int, step: int, scores: Scores) -> bool:
        """Whether trial `number`, which has just reached `step` rounds with these scores, shall stop there."""
        return False

    def seen(self, number: int, step: int, scores: Scores) -> None:
        """One more score; steps of one trial come in order."""

    def completed(self, number: int) -> None:
        """The trial has played all its rounds."""

    def place(self, number: int) -> float:
        """Where a stopped trial stood among those with as many rounds: 0 for the best, always below 1."""
        return 0.0


class Rung:
    """The scores with which trials have come to one rung, best first."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._keys: list[tuple[float, ...]] = []

    def _key(self, scores: Scores) -> tuple[float, ...]:
        return self._objective.violation(scores), *self._objective.badness(scores)

    def add(self, scores: Scores) -> None:
        insort(self._keys, self._key(scores))

    def takes(self, scores: Scores, eta: int) -> bool:
        """Whether one that comes with these scores is among the best 1/eta of all that have come, itself included."""
        key, places = self._key(scores), max(1, (len(self._keys) + 1) // eta)
        ahead = bisect_left(self._keys, key)
        if len(key) == 2 or key[0] > 0:  # one metric, or out of bounds: a plain order
            return ahead < places
        points, mine = self._feasible(), bisect_right(self._keys, key)
        points.insert(mine, (key[1], key[2]))
        ranks = fronts(points)
        better = sum(rank < ranks[mine] for rank in ranks)
        beside = [i for i, rank in enumerate(ranks) if rank == ranks[mine]]
        if better + len(beside) <= places or better >= places:
            return better < places
        kept = spread([points[i] for i in beside])[: places - better]
        return beside.index(mine) in kept

    def _feasible(self) -> list[Point]:
        return [(key[1], key[2]) for key in takewhile(lambda key: key[0] == 0, self._keys)]

    def place(self, scores: Scores) -> float:
        """The share of these trials that are better, by the whole fronts before its own where there are two metrics."""
        key = self._key(scores)
        ahead = bisect_left(self._keys, key)
        if len(key) > 2 and key[0] == 0:
            ranks = fronts(self._feasible())
            ahead = sum(rank < ranks[ahead] for rank in ranks)
        return ahead / len(self._keys)


class Halving(Pruner):
    """Asynchronous successive halving: of the trials at each rung, first * eta**k rounds, the best 1/eta go on.

    Li et al. (2020), arXiv:1810.05934 (ASHA), algorithm 2, in the form that stops rather than pauses. With two metrics
    the best are those of the first non-dominated fronts, and of the front that is cut those that keep its spread:
    Schmucker, Donini, Zafar, Salinas & Archambeau (2021), arXiv:2106.12639 (MO-ASHA).

    With several brackets it is Hyperband (Li et al. 2018, arXiv:1603.06560): the rungs of bracket b begin at
    first * eta**b, and ranks are taken within a bracket. A trial's bracket hangs on its number and the seed.
    """

    def __init__(self, objective: Objective, rungs: list[int], eta: int, *, brackets: int = 1, seed: int = 0) -> None:
        self._rungs, self._eta, self._seed = rungs, eta, seed
        stages = [brackets - 1 - bracket for bracket in range(brackets)]
        self._weights = [brackets / (s + 1) * eta**s for s in stages]  # Hyperband, line 3: n of each bracket
        self._at: dict[tuple[int, int], Rung] = defaultdict(lambda: Rung(objective))  # by bracket and rung
        self._reached: dict[int, list[tuple[Rung, Scores]]] = defaultdict(list)

    def _bracket(self, number: int) -> int:
        drawn = derive(self._seed, number, "bracket") / 2**63 * sum(self._weights)
        for bracket, weight in enumerate(self._weights):
            drawn -= weight
            if drawn < 0:
                return bracket
        return len(self._weights) - 1

    def _new(self, number: int, step: int) -> Iterator[Rung]:
        """The rungs that the trial reaches with `step` rounds, and had not before."""
        bracket = self._bracket(number) if len(self._weights) > 1 else 0
        for rung in self._rungs[bracket + len(self._reached[number]) :]:
            if rung <= step:
                yield self._at[bracket, rung]

    def stops(self, number: int, step: int, scores: Scores) -> bool:
        return not all(rung.takes(scores, self._eta) for rung in self._new(number, step))

    def seen(self, number: int, step: int, scores: Scores) -> None:
        for rung in list(self._new(number, step)):
            rung.add(scores)
            self._reached[number].append((rung, scores))

    def place(self, number: int) -> float:
        for rung, scores in reversed(self._reached[number]):
            return rung.place(scores)
        return 0.0


class Median(Pruner):
    """Stops a trial whose best score so far is behind the median, at as many rounds, of the complete ones.

    Golovin et al. (2017), "Google Vizier", section 3.2. Three complete trials before a median says anything.
    """

    STARTUP = 3

    def __init__(self, objective: Objective, first: int) -> None:
        self._objective, self._first = objective, first
        self._curves: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
        self._complete: list[int] = []

    def stops(self, number: int, step: int, scores: Scores) -> bool:
        others = [self._curves[other][step] for other in self._complete if step in self._curves[other]]
        if step < self._first or len(self._complete) < self.STARTUP or not others:
            return False
        return min([self._objective.key(scores), *self._curves[number].values()]) > median_high(others)

    def seen(self, number: int, step: int, scores: Scores) -> None:
        self._curves[number][step] = self._objective.key(scores)

    def completed(self, number: int) -> None:
        self._complete.append(number)


# Arguments: the objective, the rungs, the rounds before the first decision, the reduction factor, the seed.
_PRUNERS: dict[str, Callable[[Objective, list[int], int, int, int], Pruner]] = {
    "successive_halving": lambda objective, rungs, first, eta, seed: Halving(objective, rungs, eta),
    "hyperband": lambda objective, rungs, first, eta, seed: Halving(
        objective, rungs, eta, brackets=len(rungs) + 1, seed=seed
    ),
    "median": lambda objective, rungs, first, eta, seed: Median(objective, first),
    "none": lambda objective, rungs, first, eta, seed: Pruner(),
}


def make_pruner(
    name: str, *, objective: Objective, rounds: int, first: int | None = None, eta: int = 3, seed: int = 0
) -> Pruner:
    """The pruner `name` for trials of `rounds` rounds.

    `first`: rounds before the first decision; by default rounds / eta**3, rounded up, which with successive halving
    means decisions at 1/27, 1/9 and 1/3 of a trial, or at the evaluations that come next. Raises UserError for an
    unknown name, numbers that make no rungs, and two metrics where the pruner knows one.
    """
    if name not in _PRUNERS:
        raise unknown("search.pruner", name, _PRUNERS)
    if name == "median" and objective.second is not None:
        raise UserError(
            "search.pruner: 'median' compares by one metric; with objective.second take successive_halving, "
            "hyperband or none"
        )
    if eta < 2:
        raise UserError(f"search.eta: {eta} should be 2 or more")
    if first is None:
        first = -(-rounds // eta**3)
    if not 1 <= first <= rounds:
        raise UserError(f"search.min_rounds: {first} should lie within 1 to the rounds of a trial, {rounds}")
    return _PRUNERS[name](objective, rungs("successive_halving", rounds=rounds, first=first, eta=eta), first, eta, seed)


def rungs(name: str, *, rounds: int, first: int | None = None, eta: int = 3) -> list[int]:
    """The rounds, before the end of a trial, at which a halving pruner decides; none for other pruners."""
    if name not in ("successive_halving", "hyperband"):
        return []
    rung = -(-rounds // eta**3) if first is None else first
    found = []
    while rung < rounds:  # counted, not by a logarithm: log(243) / log(3) is 4.999...
        found.append(rung)
        rung *= eta
    return found

"""Whole searches without a training: learning curves in closed form, played by virtual workers on a virtual clock.

    python benchmarks/simulator.py      # rounds until a good configuration is complete, against random search

The space is that of the WGAN: two rates and the clip over decades, n_critic of 1, 2, 5. What a configuration's curve
looks like hangs on where it lies from an optimum that each seed puts elsewhere, so that no search can have been tuned
to its place, in one of three shapes:

    bowl    each parameter has its best value, by itself
    ridge   the rates must fit the clip and each other: what is best for one hangs on the others
    decoy   a bowl, and beside it a second one, twice as wide, that ends well above the first

Everywhere else lies a plateau where nothing is learned. A curve falls from START with a power of the rounds; small
rates take longer and end lower, so curves cross: the best at a ninth of the rounds are not the best at the end. Where
the critic's rate outgrows the clip a training diverges, the sooner the larger the rate. Every score is noisy. The good
region is the best SHARE of the volume by the score, without noise, at the end.

With a planted collapse, the generators of one corner, far from the optimum, have the best FID of all and no recall.
"""

import argparse
import heapq
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console
from rich.table import Table

from saddlepoint.metrics.objective import Objective
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome, Suggestion
from saddlepoint.space import Choice, FloatRange, Space

ROUNDS, EVERY = 270, 10  # of a trial; between its evaluations
START, FLOOR = 250.0, 12.0  # FID of a generator that has learned nothing, and of the best one
LATE = 5  # rounds before anything is seen, at the best rate
NOISE = 0.04  # standard deviation of a score's logarithm
SHARE = 0.02  # of the volume is good
SHAPES = ("bowl", "ridge", "decoy")
SEARCHES: dict[str, dict[str, Any]] = {
    "random, full length": {"sampler": "random", "pruner": "none"},
    "random + successive halving": {"sampler": "random"},
    "TPE, full length": {"pruner": "none"},
    "TPE + successive halving": {},  # as SearchSpec has it
}
SPACE = Space.model_validate(
    {
        "game": "wgan",
        "parameters": {
            "lr_critic": {"type": "log_float", "low": 1e-5, "high": 1e-2, "default": 5e-5},
            "lr_generator": {"type": "log_float", "low": 1e-5, "high": 1e-2, "default": 5e-5},
            "clip": {"type": "log_float", "low": 0.003, "high": 0.32, "default": 0.01},
            "n_critic": {"type": "choice", "choices": [1, 2, 5], "default": 5},
        },
    }
)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Landscape:
    """Curves over SPACE; all that is random in it comes from `seed`."""

    shape: str
    seed: int
    collapse: bool = False

    @cached_property
    def best(self) -> dict[str, float]:
        """The optimum: log10 of the three, anywhere in the middle two thirds of their ranges; the best n_critic."""
        place = random.Random(f"{self.shape}/{self.seed}")
        return {
            "lr_critic": place.uniform(-4.5, -2.5),
            "lr_generator": place.uniform(-4.5, -2.5),
            "clip": place.uniform(-2.2, -0.85),
            "n_critic": place.choice([1, 2, 5]),
        }

    def distance(self, values: Values) -> float:
        """From the optimum: 1 where about half of what can be learned is."""
        best = self.best
        critic, generator, clip = (math.log10(values[n]) - best[n] for n in ("lr_critic", "lr_generator", "clip"))
        moves = 0.5 * abs(math.log2(values["n_critic"] / best["n_critic"]))
        if self.shape == "ridge":
            return math.hypot((critic - clip) / 0.5, (generator - critic) / 0.5, clip / 0.8, moves)
        near = math.hypot(critic / 0.6, generator / 0.6, clip / 0.6, moves)
        if self.shape == "bowl":
            return near
        critic, generator, clip = (d - 1.2 * math.copysign(1, 0.5 - r) for d, r in (
            (critic, (best["lr_critic"] + 5) / 3),
            (generator, (best["lr_generator"] + 5) / 3),
            (clip, (best["clip"] + 2.52) / 2.03),
        ))  # fmt: skip
        return min(near, 0.9 + math.hypot(critic / 1.2, generator / 1.2, clip / 1.2, moves))

    def diverges(self, values: Values) -> int | None:
        """The round at which the training has no finite numbers any more."""
        beyond = math.log10(values["lr_critic"] / values["clip"]) - max(
            -0.7, self.best["lr_critic"] - self.best["clip"] + 0.7
        )
        return None if beyond <= 0 else max(1, int(ROUNDS * 10 ** (-2 * beyond)))

    def collapsed(self, values: Values) -> bool:
        """In the corner of both rates that is farthest from the optimum: beyond half a decade from it, on the far side
        of each: 11 to 25 % of the volume."""
        rates = ("lr_critic", "lr_generator")
        sides = [math.copysign(1, -3.5 - self.best[name]) for name in rates]
        far = (side * (math.log10(values[n]) - self.best[n]) > 0.5 for n, side in zip(rates, sides, strict=True))
        return self.collapse and all(far)

    def level(self, values: Values, rounds: int) -> dict[str, float]:
        """FID and recall after so many rounds, without noise; NaN after it has diverged."""
        end = self.diverges(values)
        if end is not None and rounds >= end:
            return {"fid": math.nan, "recall": math.nan}
        learned = 1 / (1 + self.distance(values) ** 2)
        rate = math.log10(values["lr_generator"]) - self.best["lr_generator"]
        slowness = 10 ** (-0.7 * rate)  # small rates start late, and until then look like the dead ones ...
        last = FLOOR * 10 ** (0.3 * max(0.0, rate))  # ... and large ones never settle
        since = max(0.0, rounds / slowness - LATE)
        fallen = since / (since + 10)
        if self.collapsed(values):
            return {"fid": START - (START - FLOOR / 4) * rounds / (rounds + 5), "recall": 0.02}
        return {"fid": START - (START - last) * learned * fallen, "recall": 0.8 * learned * fallen}

    def scores(self, trial: Suggestion, rounds: int) -> dict[str, float]:
        noise = random.Random(f"{trial.seed}/{rounds}")
        return {name: v * math.exp(noise.gauss(0, NOISE)) for name, v in self.level(trial.values, rounds).items()}

    def is_good(self, values: Values) -> bool:
        return self.level(values, ROUNDS)["fid"] <= self.good

    @cached_property
    def good(self) -> float:
        """The FID at the end that SHARE of the volume reaches, from 4000 random configurations."""
        draw = random.Random(f"{self.shape}/{self.seed}/volume")
        ends = [self.level(uniform(draw), ROUNDS)["fid"] for _ in range(4000)]
        return sorted(math.inf if math.isnan(end) else end for end in ends)[int(SHARE * len(ends)) - 1]


def uniform(draw: random.Random) -> dict[str, Any]:
    """A configuration from anywhere in the space, as random search draws it."""

    def value(name: str, parameter: Any) -> Any:
        match parameter:
            case FloatRange():
                return 10 ** draw.uniform(math.log10(parameter.low), math.log10(parameter.high))
            case Choice():
                return draw.choice(parameter.choices)

    return SPACE.walk(value)


Due = tuple[float, int, Suggestion, int]  # clock, worker, trial, rounds that it will then have played


@dataclass
class Simulation:
    """Workers that play the trials of a ledger, on a clock whose unit is the time of a round with one critic move.

    scores: what a trial reports after some rounds; where one is not finite it has diverged. every: rounds between
    reports.
    """

    ledger: Ledger
    scores: Callable[[Suggestion, int], Mapping[str, float]]
    every: int = EVERY
    rounds: int = 0  # played, over all trials

    def play(self, limit: int, *, workers: int = 2, until: Callable[[Values], bool] = lambda _: False) -> bool:
        """Plays up to `limit` trials; True: stopped at a complete one for whose values `until` holds."""
        due: list[Due] = []
        for worker in range(workers):
            self._begin(due, 0.0, worker, limit)
        while due:
            clock, worker, trial, step = heapq.heappop(due)
            self.rounds += self.every
            scores = self.scores(trial, step)
            if not all(map(math.isfinite, scores.values())):
                self.ledger.tell(trial.number, Outcome.DIVERGED)
            elif step >= ROUNDS:
                self.ledger.tell(trial.number, Outcome.COMPLETE, scores)
                if until(trial.values):
                    return True
            elif self.ledger.report(trial.number, step, scores):
                self.ledger.tell(trial.number, Outcome.PRUNED)
            else:
                self._go_on(due, clock, worker, trial, step)
                continue
            self._begin(due, clock, worker, limit)
        return False

    def _begin(self, due: list[Due], clock: float, worker: int, limit: int) -> None:
        trial = self.ledger.next(limit)
        if trial is not None:
            self._go_on(due, clock, worker, trial, 0)

    def _go_on(self, due: list[Due], clock: float, worker: int, trial: Suggestion, step: int) -> None:
        seconds = self.every * (1 + trial.values["n_critic"]) / 2
        heapq.heappush(due, (clock + seconds, worker, trial, step + self.every))


def simulated(landscape: Landscape, objective: Objective, **search: Any) -> Simulation:
    """A sweep of this landscape that is about to begin. Where nothing is pruned, nothing is reported before the end."""
    ledger = Ledger.open(None, "sweep", space=SPACE, rounds=ROUNDS, objective=objective, seed=landscape.seed, **search)
    return Simulation(ledger, landscape.scores, ROUNDS if search.get("pruner") == "none" else EVERY)


def rounds_to_good(landscape: Landscape, **search: Any) -> float:
    """Rounds that a search plays until a configuration of the good region is complete; infinite: not in 2000 trials."""
    simulation = simulated(landscape, Objective.of("fid"), **search)
    return simulation.rounds if simulation.play(2000, until=landscape.is_good) else math.inf


def row(rounds: Sequence[float], baseline: Sequence[float]) -> list[str]:
    """Mean, quartiles, the worst, and the ratio of the medians."""
    low, median, high = statistics.quantiles(rounds, n=4)
    numbers = (statistics.mean(rounds), low, median, high, max(rounds))
    return [*(f"{number:.0f}" for number in numbers), f"{median / statistics.median(baseline):.2f}"]


def table(title: str) -> Table:
    made = Table(title=title, title_justify="left", min_width=76, box=None, pad_edge=False)
    made.add_column(no_wrap=True)
    for column in ("mean", "25 %", "median", "75 %", "most", "ratio"):
        made.add_column(column, justify="right")
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=50)
    seeds = range(arguments.parse_args().seeds)
    console = Console(highlight=False)
    for shape in SHAPES:
        made = table(f"Rounds until a good configuration is complete: {shape}, {len(seeds)} seeds, 2 workers")
        baseline: list[float] = []
        for name, search in SEARCHES.items():
            rounds = [rounds_to_good(Landscape(shape, seed), **search) for seed in seeds]
            baseline = baseline or rounds
            made.add_row(name, *row(rounds, baseline))
        console.print(made)
    console.print(
        f"A trial has {ROUNDS} rounds; {SHARE:.0%} of the volume is good. ratio: of the medians; the aim for the last "
        "row is 0.20 at most.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()

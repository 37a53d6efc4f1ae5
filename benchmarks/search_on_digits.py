"""How many rounds of training does a search need until it holds a good Wasserstein GAN? Real trainings, on digits.

    python benchmarks/search_on_digits.py [--seeds 5] [--pool 48] [--good 1] [--set KEY=VALUE ...]

    random        random search, every training at full length: a pool of trainings, run once. Good is an FID at most
                  that of the pool's `--good` best; the rounds until a first good one are those over random orders of
                  the pool.
    the search    TPE and successive halving, as `saddle sweep digits-wgan` has them, changed by --set: the rounds until
                  a first good training is complete, for each seed. One at a time, so nothing hangs on timing.

A search that has found nothing after --most trials counts with the rounds that it played until then: too few, which
flatters it. The same question on tabulated curves, over 50 seeds, where 2 % of the volume are good, as the best of 48
are: benchmarks/simulator.py.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.training.sentinel import Diverged
from saddlepoint.training.setup import setup

AIM = 0.2
ORDERS = 10_000
RANDOM = ("search.sampler=random", "search.pruner=none", "search.min_rounds=null")


@dataclass(frozen=True)
class Trial:
    rounds: int
    fid: float | None  # None: it did not come to its end


def trials(pipeline: Pipeline, most: int, only: int | None = None) -> Iterator[Trial]:
    """A search's trials as they end; `only` that one of them is trained, the others are passed over (random search)."""
    spec, objective, shared = pipeline.search, pipeline.objective.built(), setup(pipeline)
    assert spec is not None
    ledger = Ledger.open(None, "bench", space=spec.space, rounds=pipeline.training.rounds, objective=objective,
                         sampler=spec.sampler, pruner=spec.pruner, min_rounds=spec.min_rounds, eta=spec.eta,
                         seed=pipeline.seed)  # fmt: skip
    while (suggestion := ledger.next(most)) is not None:
        if only is not None and suggestion.number != only:
            ledger.tell(suggestion.number, Outcome.FAILED)
            continue
        outcome, scores, reached = Outcome.PRUNED, None, 0
        with tempfile.TemporaryDirectory() as folder:
            trial = pipeline.with_values(suggestion.values)
            try:
                for report in train(trial, seed=suggestion.seed, folder=Path(folder), shared=shared):
                    reached = report.round
                    if report.final:
                        outcome, scores = Outcome.COMPLETE, report.metrics
                    elif ledger.report(suggestion.number, report.round, report.metrics):
                        break
            except Diverged:
                outcome = Outcome.DIVERGED
        ledger.tell(suggestion.number, outcome, scores)
        yield Trial(reached, None if scores is None else scores["fid"])


def random_trial(number: int) -> Trial:
    """One of random search's, not counting the published defaults, which come first."""
    return next(trials(Pipeline.load("digits-wgan", RANDOM), number + 2, only=number + 1))


def search(changes: tuple[str, ...], target: float, most: int, seed: int) -> tuple[int, list[Trial]]:
    pipeline, played = Pipeline.load("digits-wgan", [*changes, f"seed={seed}"]), []
    for trial in trials(pipeline, most):
        played.append(trial)
        if trial.fid is not None and trial.fid <= target:
            break
    return seed, played


def until_good(pool: list[Trial], target: float) -> list[int]:
    """The rounds that random search plays until its first good training, over random orders of the pool."""
    rounds = np.array([trial.rounds for trial in pool])
    good = np.array([trial.fid is not None and trial.fid <= target for trial in pool])
    draw = np.random.default_rng(0)
    found = []
    for _ in range(ORDERS):
        order = draw.permutation(len(pool))
        found.append(int(rounds[order].cumsum()[good[order].argmax()]))
    return found


def single() -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=48)
    parser.add_argument("--good", type=int, default=1)
    parser.add_argument("--most", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    with ProcessPoolExecutor(os.cpu_count(), initializer=single) as workers:
        pool = list(workers.map(random_trial, range(asked.pool)))
        best = sorted(trial.fid for trial in pool if trial.fid is not None)
        target = best[asked.good - 1]
        ours = list(workers.map(partial(search, tuple(asked.set), target, asked.most), range(asked.seeds)))
    random = until_good(pool, target)
    low, middle, high = (float(np.quantile(random, share)) for share in (0.25, 0.5, 0.75))
    table = Table(title=f"Rounds until a digits WGAN of FID {target:.1f} or less, {date.today()}, Python "
                        f"{platform.python_version()}, torch {torch.__version__}", title_justify="left")  # fmt: skip
    table.add_column("search")
    for column in ("trials", "rounds", "its FID"):
        table.add_column(column, justify="right")
    table.add_row(f"random, full length: {asked.good} of a pool of {asked.pool} are good", "",
                  f"{middle:,.0f} ({low:,.0f} to {high:,.0f})", "")  # fmt: skip
    spent = []
    for seed, played in ours:
        spent.append(sum(trial.rounds for trial in played))
        fid = played[-1].fid
        good = fid is not None and fid <= target
        table.add_row(f"TPE, successive halving {' '.join(asked.set)}, seed {seed}", str(len(played)),
                      f"{spent[-1]:,}", f"{fid:.1f}" if good else "none found")  # fmt: skip
    console = Console(width=130)
    console.print(table)
    ratio = median(spent) / middle
    console.print(f"{'PASS' if ratio <= AIM else 'MISSED'}  medians: {median(spent):,.0f} of {middle:,.0f} rounds, "
                  f"{ratio:.2f} (aim: at most {AIM:g})", soft_wrap=True)  # fmt: skip


if __name__ == "__main__":
    main()

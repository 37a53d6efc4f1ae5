"""How many rounds of training does a search need until it holds a good Wasserstein GAN? Real trainings, on digits.

    python benchmarks/search_on_digits.py [--seeds 3] [--target 40]

Good: a complete training of the pipeline digits-wgan with an FID of at most the target (real data: 4.5; the published
defaults end near 520). Two searches over the pipeline's space, one trial at a time, so that nothing hangs on timing:

    the search    TPE and successive halving, as `saddle sweep digits-wgan` has them
    random        random search, every training at full length

A search that has found nothing after --most trials counts with the rounds that it played until then: too few, which
flatters it. The same question on tabulated curves, over 50 seeds: benchmarks/simulator.py.
"""

import argparse
import os
import platform
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.training.sentinel import Diverged
from saddlepoint.training.setup import setup

WAYS = {"TPE, successive halving": (), "random, full length": ("search.sampler=random", "search.pruner=none")}
AIM = 0.2


@dataclass(frozen=True)
class Search:
    way: str
    seed: int
    rounds: int  # until the first good one was complete
    trials: int
    fid: float | None  # of that one; None: none was found


def search(way: str, seed: int, target: float, most: int) -> Search:
    pipeline = Pipeline.load("digits-wgan", [*WAYS[way], f"seed={seed}"])
    spec, objective, shared = pipeline.search, pipeline.objective.built(), setup(pipeline)
    assert spec is not None
    ledger = Ledger.open(None, "bench", space=spec.space, rounds=pipeline.training.rounds, objective=objective,
                         sampler=spec.sampler, pruner=spec.pruner, min_rounds=spec.min_rounds, eta=spec.eta,
                         seed=seed)  # fmt: skip
    rounds = trials = 0
    while (suggestion := ledger.next(most)) is not None:
        trials += 1
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
        rounds += reached
        ledger.tell(suggestion.number, outcome, scores)
        if scores is not None and scores["fid"] <= target:
            return Search(way, seed, rounds, trials, scores["fid"])
    return Search(way, seed, rounds, trials, None)


def single() -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=40.0)
    parser.add_argument("--most", type=int, default=60)
    asked = parser.parse_args()
    with ProcessPoolExecutor(os.cpu_count(), initializer=single) as pool:
        waiting = [
            pool.submit(search, way, seed, asked.target, asked.most) for way in WAYS for seed in range(asked.seeds)
        ]
        found = [each.result() for each in waiting]
    table = Table(title=f"Rounds until a digits WGAN of FID {asked.target:g} or less, {date.today()}, Python "
                        f"{platform.python_version()}, torch {torch.__version__}", title_justify="left")  # fmt: skip
    table.add_column("search")
    for column in ("seed", "trials", "rounds", "its FID"):
        table.add_column(column, justify="right")
    for each in found:
        fid = "none found" if each.fid is None else f"{each.fid:.1f}"
        table.add_row(each.way, str(each.seed), str(each.trials), f"{each.rounds:,}", fid)
    console = Console(width=110)
    console.print(table)
    ours, theirs = (median(each.rounds for each in found if each.way == way) for way in WAYS)
    console.print(f"{'PASS' if ours <= AIM * theirs else 'MISSED'}  medians: {ours:,.0f} of {theirs:,.0f} rounds, "
                  f"{ours / theirs:.2f} (aim: at most {AIM:g})")  # fmt: skip


if __name__ == "__main__":
    main()

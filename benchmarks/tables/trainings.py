"""Trainings of the shipped pipelines, several side by side, each in a process of its own on one thread."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from saddlepoint import Pipeline, train
from saddlepoint.training.sentinel import Diverged

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Recipe:
    """What a row trains: a pipeline with its own values, or with the published defaults of its search space."""

    pipeline: str
    overrides: tuple[str, ...] = ()
    defaults: bool = False

    def load(self) -> Pipeline:
        pipeline = Pipeline.load(self.pipeline, [*self.overrides, "training.device=cpu", "resources.cpus=1"])
        if not self.defaults:
            return pipeline
        assert pipeline.search is not None
        return pipeline.with_values(pipeline.search.space.defaults())


@dataclass(frozen=True)
class Result:
    """The final scores of one training; none if it diverged."""

    scores: Mapping[str, float]
    seconds: float


@dataclass
class Measured:
    """The results of one row, by seed."""

    results: dict[int, Result] = field(default_factory=dict)

    @property
    def metrics(self) -> set[str]:
        """Empty if every seed diverged."""
        return {name for result in self.results.values() for name in result.scores}

    def values(self, metric: str) -> list[float]:
        """One for each seed, in their order; NaN if it diverged."""
        return [self.results[seed].scores.get(metric, math.nan) for seed in sorted(self.results)]

    def mean(self, metric: str) -> float:
        return fmean(self.values(metric))

    def median(self, metric: str) -> float:
        values = self.values(metric)
        return math.nan if any(map(math.isnan, values)) else median(values)

    def spread(self, metric: str) -> float:
        """The sample standard deviation over seeds."""
        return float(np.std(self.values(metric), ddof=1))  # statistics.stdev cannot take NaN

    @property
    def seconds(self) -> float:
        """Of one training, on average, its evaluations included."""
        return fmean(result.seconds for result in self.results.values())


def run(recipe: Recipe, seed: int) -> Result:
    report, pipeline = None, recipe.load()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for report in train(pipeline, seed=seed, folder=Path(folder)):  # noqa: B007  (the last one counts)
                pass
        except Diverged:
            return Result({}, report.seconds if report else math.nan)
    assert report is not None  # a training always ends with its final report
    return Result(report.metrics, report.seconds)


class Workers:
    """Processes that train; they are kept from table to table, so that each imports torch once."""

    def __init__(self, pool: ProcessPoolExecutor, console: Console) -> None:
        self._pool, self._console = pool, console

    def train(self, title: str, recipes: Mapping[str, Recipe], seeds: Sequence[int] = SEEDS) -> dict[str, Measured]:
        """Every recipe on every seed; the rows by name."""
        jobs = {
            self._pool.submit(run, recipe, seed): (name, seed) for seed in seeds for name, recipe in recipes.items()
        }
        measured = {name: Measured() for name in recipes}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            bar = progress.add_task(f"{title}: trainings", total=len(jobs))
            for job in as_completed(jobs):
                name, seed = jobs[job]
                measured[name].results[seed] = job.result()
                progress.advance(bar)
        return measured


@contextmanager
def workers(count: int, console: Console) -> Iterator[Workers]:
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        try:
            yield Workers(pool, console)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

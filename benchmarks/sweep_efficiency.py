"""The efficiency of a sweep: training seconds, summed over trials, over wall seconds x cores; the same trials three ways.

    saddle sweep    the whole: ledger, MLflow, pictures, Ray Tune on warm workers
    executor        the same workers alone: a worker that is done takes the next trial
    cold processes  Ray Tune's own way, reuse_actors=False: each trial a new process, which imports torch and loads the data

The trials are random configurations of the pipeline digits-wgan at full length, fixed by the seed; none is pruned. A
training's seconds are those of its rounds and evaluations; starting a process, importing, loading and waiting are not
among them. All ways share one local Ray, whose start is no part of the wall seconds.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from rich.console import Console
from rich.table import Table

from saddlepoint.scaling.cluster import running
from saddlepoint.scaling.executor import execute
from saddlepoint.scaling.jobs import Job, Resources
from saddlepoint.search.ledger import Ledger
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.workflows.sweep import sweep
from saddlepoint.workflows.trial import Order, work

AIM = 0.8


@dataclass(frozen=True)
class Measured:
    wall: float  # seconds
    training: float  # seconds, summed over trials
    complete: int  # trials that trained to their end


def orders(pipeline: Pipeline, folder: Path) -> list[Order]:
    """The trials that a sweep of this pipeline would run, in its order: the ledger's draws hang on the seed alone."""
    search = pipeline.search
    assert search is not None
    rounds, sampler = pipeline.training.rounds, search.sampler
    ledger = Ledger.open(
        None,
        "benchmark",
        space=search.space,
        rounds=rounds,
        sampler=sampler,
        pruner="none",
        seed=pipeline.seed,
    )
    drawn = []
    while (suggestion := ledger.next(search.trials)) is not None:
        content = pipeline.with_values(suggestion.values).content()
        drawn.append(Order(content, suggestion.seed, str(folder / str(suggestion.number))))
    return drawn


def whole_sweep(pipeline: Pipeline, folder: Path) -> Measured:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    folder.mkdir()
    start = time.perf_counter()
    records = sweep(pipeline, root=folder)
    wall = time.perf_counter() - start
    complete = sum(record.state == "complete" for record in records)
    return Measured(wall, sum(record.attrs.get("seconds", 0.0) for record in records), complete)


@dataclass
class Listed:
    """A source for the executor: a list of orders, none of them ever stopped."""

    waiting: list[Job]
    seconds: dict[int, float] = field(default_factory=dict)
    complete: int = 0

    def next(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def result(self, number: int, report: Mapping[str, Any]) -> bool:
        if "diverged" not in report:
            self.seconds[number] = report["seconds"]
            self.complete += report["final"]
        return False

    def ended(self, number: int, error: str | None) -> None:
        if error is not None:
            raise RuntimeError(f"trial {number}: {error}")


def warm(pipeline: Pipeline, folder: Path) -> Measured:
    source = Listed([Job(number, order) for number, order in enumerate(orders(pipeline, folder))])
    resources = Resources(cpus=pipeline.resources.cpus)
    execution = execute(source, work, resources=resources, storage=folder / "ray", log=folder / "log")
    return Measured(execution.wall, sum(source.seconds.values()), source.complete)


def cold(pipeline: Pipeline, folder: Path) -> Measured:
    listed = orders(pipeline, folder)

    def trial(config: dict[str, Any]) -> None:
        def report(told: dict[str, Any]) -> None:
            if "diverged" not in told:
                tune.report({"seconds": told["seconds"], "final": told["final"]})

        work(listed[config["number"]], report)

    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": pipeline.resources.cpus}),
        param_space={"number": tune.grid_search(list(range(len(listed))))},
        tune_config=tune.TuneConfig(reuse_actors=False),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    start = time.perf_counter()
    results = tuner.fit()
    wall = time.perf_counter() - start
    if results.errors:
        raise results.errors[0]
    last = [result.metrics or {} for result in results]
    return Measured(wall, sum(m.get("seconds", 0.0) for m in last), sum(m.get("final", False) for m in last))


WAYS = {
    "saddle sweep": (whole_sweep, AIM),
    "executor, warm workers": (warm, AIM),
    "Ray Tune, cold processes": (cold, None),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--trials", type=int, default=16)
    arguments.add_argument("--rounds", type=int, help="of a trial; the pipeline's if not given")
    arguments.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="one trial on each")
    asked = arguments.parse_args()

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray Tune's own table
    changes = [
        "search.sampler=random",
        "search.pruner=none",
        "training.device=cpu",
        f"search.trials={asked.trials}",
    ]
    pipeline = Pipeline.load(
        "digits-wgan", changes + ([f"training.rounds={asked.rounds}"] if asked.rounds else [])
    )
    setup(pipeline)  # so that the classifier behind FID, trained once a machine, is there before a clock runs
    with tempfile.TemporaryDirectory() as place, running(cpus=asked.cores, log=Path(place) / "ray.log"):
        measured = {
            name: way(pipeline, Path(place) / str(at)) for at, (name, (way, _)) in enumerate(WAYS.items())
        }

    title = f"{asked.trials} trials of {pipeline.training.rounds} rounds on {asked.cores} cores"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", "wall s", "training s", "efficiency", "aim", "trials a minute"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, (_, aim) in WAYS.items():
        m = measured[name]
        efficiency, pace = m.training / (m.wall * asked.cores), 60 * asked.trials / m.wall
        aimed = "" if aim is None else f">= {aim}"
        table.add_row(name, f"{m.wall:.0f}", f"{m.training:.0f}", f"{efficiency:.2f}", aimed, f"{pace:.1f}")
    console = Console(highlight=False)
    console.print(table)
    ended = ", ".join(f"{m.complete} of {asked.trials}" for m in measured.values())
    console.print(
        f"Efficiency: training s over (wall s x cores). Trained to their end, each way: {ended}; the others diverged.\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, ray {ray.__version__}, {platform.machine()}.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()

"""The efficiency of a sweep: training seconds over (wall seconds x cores), for the same trials three ways.

    saddle sweep               the whole: ledger, MLflow, pictures, Ray Tune on warm workers
    executor, warm workers     these workers alone: one that is done takes the next trial
    Ray Tune, cold processes   reuse_actors=False: each trial a new one, which imports torch, loads the data

The trials are random configurations of the pipeline digits-wgan, fixed by its seed; none is pruned. A
training's seconds are those of its rounds and evaluations; starting a process, importing, loading and waiting
are not among them. All ways share one local Ray, whose start is no part of their wall seconds.
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

from saddlepoint.errors import SaddleError
from saddlepoint.scaling.cluster import running
from saddlepoint.scaling.executor import execute, rest
from saddlepoint.scaling.jobs import End, Job, Resources
from saddlepoint.search.ledger import Ledger
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.workflows.sweep import searched, sweep
from saddlepoint.workflows.trial import Order, work

AIM = 0.8


@dataclass(frozen=True)
class Measured:
    wall: float  # seconds
    training: float  # seconds, summed over trials
    complete: int  # trials that trained to their end


def orders(pipeline: Pipeline, folder: Path) -> list[Order]:
    """The trials that a sweep of this pipeline runs: random draws of the ledger hang on the seed alone."""
    search = searched(pipeline)
    ledger = Ledger.open(
        None,
        pipeline.name,
        space=search.space,
        rounds=pipeline.training.rounds,
        objective=pipeline.objective.built(),
        sampler=search.sampler,
        pruner=search.pruner,
        seed=pipeline.seed,
    )
    drawn = []
    while (suggestion := ledger.next(search.trials)) is not None:
        content = pipeline.with_values(suggestion.values).content()
        drawn.append(Order(content, suggestion.seed, str(folder / str(suggestion.number))))
    return drawn


def whole(pipeline: Pipeline, folder: Path) -> Measured:
    folder.mkdir()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    start = time.perf_counter()
    records = sweep(pipeline, root=folder)
    wall = time.perf_counter() - start
    training = sum(record.attrs.get("seconds", 0.0) for record in records)
    return Measured(wall, training, sum(record.state == "complete" for record in records))


@dataclass
class Listed:
    """A source for the executor: jobs from a list, none of them ever stopped."""

    jobs: list[Job]
    seconds: dict[int, float] = field(default_factory=dict)
    complete: int = 0

    def next(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def result(self, number: int, report: Mapping[str, Any]) -> bool:
        if "diverged" not in report:
            self.seconds[number] = report["seconds"]
            self.complete += report["final"]
        return False

    def ended(self, number: int, end: End) -> None:
        if end.how != "done":
            raise SaddleError(f"trial {number}: {end.text}")


def warm(pipeline: Pipeline, folder: Path) -> Measured:
    source = Listed([Job(number, order) for number, order in enumerate(orders(pipeline, folder))])
    needs = Resources(cpus=pipeline.resources.cpus)
    execution = execute(source, work, resources=needs, storage=folder / "ray", log=folder / "log")
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
    for error in results.errors:
        raise error
    last = [result.metrics or {} for result in results]
    training = sum(metrics.get("seconds", 0.0) for metrics in last)
    return Measured(wall, training, sum(metrics.get("final", False) for metrics in last))


WAYS = {"saddle sweep": whole, "executor, warm workers": warm, "Ray Tune, cold processes": cold}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--trials", type=int, default=16)
    arguments.add_argument("--rounds", type=int, help="of a trial; the pipeline's if not given")
    arguments.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="one trial on each")
    asked = arguments.parse_args()

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Ray Tune has a table of its own
    changes = ["training.device=cpu", "search.sampler=random", "search.pruner=none"]
    changes += [f"search.trials={asked.trials}"]
    changes += [f"training.rounds={asked.rounds}"] if asked.rounds else []
    pipeline = Pipeline.load("digits-wgan", changes)
    setup(pipeline)  # the classifier behind FID is trained once a machine: before any clock runs
    with tempfile.TemporaryDirectory() as place, running(cpus=asked.cores, log=Path(place) / "ray.log"):
        measured = {}
        for name, way in WAYS.items():
            measured[name] = way(pipeline, Path(place) / way.__name__)
            rest()  # every row starts its own workers

    title = f"{asked.trials} trials of {pipeline.training.rounds} rounds on {asked.cores} cores"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    for column in ("wall s", "training s", "efficiency", "aim", "trials/min"):
        table.add_column(column, justify="right")
    for name, m in measured.items():
        efficiency, pace = m.training / (m.wall * asked.cores), 60 * asked.trials / m.wall
        aim = "" if WAYS[name] is cold else f">= {AIM}"
        table.add_row(name, f"{m.wall:.0f}", f"{m.training:.0f}", f"{efficiency:.2f}", aim, f"{pace:.1f}")
    console = Console(highlight=False)
    console.print(table)
    ended = ", ".join(str(m.complete) for m in measured.values())
    versions = f"torch {torch.__version__}, ray {ray.__version__}"
    notes = (
        "Efficiency: training s over (wall s x cores).",
        f"Trained to their end: {ended} of {asked.trials}; the others diverged.",
        f"Python {platform.python_version()}, {versions}, {platform.machine()}.",
    )
    console.print(*notes, sep="\n", soft_wrap=True)


if __name__ == "__main__":
    main()

"""How fast is a sweep of short trials? 64 trials of one second on 2 cores, beside Ray Tune and Optuna with the same.

    python benchmarks/sweep_speed.py [--trials 64] [--cold 16]

A trial imports torch, waits for a second, as for a GPU, and reports a score: all else is what a sweep adds. The limit
is trials x seconds / cores. Ray is started before any clock runs; the workers are not.

    saddle sweep          the whole: ledger on SQLite, TPE, spool, MLflow, Ray Tune on warm workers; two sweeps after
                          one another in one session
    Ray Tune, cold        as it is out of the box: a process for each trial; fewer trials, for its pace is constant
    Optuna, one process   study.optimize with a thread a core: no isolation, no second machine, no tracking
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from rich.console import Console
from rich.table import Table

from saddlepoint.scaling.cluster import running
from saddlepoint.scaling.executor import rest
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.sweep import sweep
from saddlepoint.workflows.trial import Order

CORES, SECOND = 2, 1.0
AIM_COLD, AIM_LIMIT = 5.0, 0.9  # times the pace of cold processes; share of the limit
CHANGES = ("search.pruner=none", "search.min_rounds=null", "confirm.top=1", "training.rounds=200", "search.sampler=tpe")


def score(lr: float) -> float:
    return abs(lr - 1e-3)


def stub(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    lr = Pipeline.parse(order.pipeline).hyperparameters().lr_critic
    time.sleep(SECOND)
    for final in (False, True):
        metrics = {name: score(lr) for name in ("fid", "kid", "recall", "coverage")}
        report({"round": 200, "metrics": metrics, "trace": [], "pictures": {}, "seconds": SECOND,
                "best_round": 200, "final": final})  # fmt: skip


def whole(trials: int, name: str) -> float:
    """Seconds of a sweep, from the moment at which everything is open to the last trial's end."""
    pipeline = Pipeline.load("digits-wgan", [*CHANGES, f"search.trials={trials}", f"name={name}"])
    original = sweep_room.Sweep.search_on
    took = 0.0

    def timed(self: sweep_room.Sweep) -> Any:
        nonlocal took
        started = time.perf_counter()
        done = original(self)
        took = time.perf_counter() - started
        return done

    work, sweep_room.work = sweep_room.work, stub
    sweep_room.Sweep.search_on = timed  # type: ignore[method-assign]
    try:
        records = sweep(pipeline)
    finally:
        sweep_room.work, sweep_room.Sweep.search_on = work, original  # type: ignore[method-assign]
    assert [record.state for record in records] == ["complete"] * trials
    return took


def cold(trials: int) -> float:
    def trial(config: dict[str, float]) -> None:
        import torch  # as every training does

        assert torch.__version__
        time.sleep(SECOND)
        tune.report({"fid": score(config["lr"])})

    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"lr": tune.loguniform(1e-5, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, metric="fid", mode="min"),
        run_config=tune.RunConfig(storage_path=str(Path("tune").absolute()), verbose=0),
    )
    started = time.perf_counter()
    results = tuner.fit()
    took = time.perf_counter() - started
    assert len(results) == trials
    assert not results.errors
    return took


def one_process(trials: int) -> float:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage="sqlite:///plain.db", sampler=optuna.samplers.TPESampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        time.sleep(SECOND)
        return score(lr)

    started = time.perf_counter()
    study.optimize(objective, n_trials=trials, n_jobs=CORES)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--cold", type=int, default=16, help="trials of the row with cold processes")
    asked = parser.parse_args()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    setup(Pipeline.load("digits-wgan"))  # the classifier behind FID is trained once a machine
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        with running(cpus=CORES, log=Path(folder) / "ray.log"):
            n = asked.trials
            took = {
                "saddle sweep, the first of a session": (n, whole(n, "first")),
                "saddle sweep, the second": (n, whole(n, "second")),
            }
            rest()
            took["Ray Tune, cold processes"] = (asked.cold, cold(asked.cold))
        took["Optuna, one process, a thread a core"] = (n, one_process(n))
        os.chdir("/")
    table = Table(title=f"Trials of {SECOND:g} s on {CORES} cores, {date.today()}, Python {platform.python_version()}, "
                        f"ray {ray.__version__}, optuna {optuna.__version__}", title_justify="left")  # fmt: skip
    table.add_column("")
    for column in ("trials", "wall s", "trials/min", "over cold Tune", "aim", "of the limit", "aim"):
        table.add_column(column, justify="right")
    slow = asked.cold / took["Ray Tune, cold processes"][1]
    for name, (n, seconds) in took.items():
        ours = name.startswith("saddle")
        aims = (f">= {AIM_COLD:g}", f">= {AIM_LIMIT:g}") if ours else ("", "")
        table.add_row(name, str(n), f"{seconds:.1f}", f"{60 * n / seconds:.1f}", f"{n / seconds / slow:.1f}", aims[0],
                      f"{n * SECOND / CORES / seconds:.2f}", aims[1])  # fmt: skip
    Console(width=130, highlight=False).print(table)


if __name__ == "__main__":
    main()

"""Does a sweep stay cheap as it grows? 2,000 trials that train nothing, through the whole driver.

    python benchmarks/many_trials.py [--trials 2000]

Everything is real but the training: the ledger on SQLite, Ray Tune with warm workers, the spool and MLflow. A stub on
the worker reports a learning curve in closed form at once, so what is measured is what the driver does: its
processor's time (all threads: suggesting, noting, spooling, sending) and its memory, by windows of trials. TPE reads
all trials before each suggestion and is shown beside the random sampler.
"""

import argparse
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from saddlepoint.metrics.catalogue import METRICS
from saddlepoint.scaling.jobs import Job
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.query import children, sweeps
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.sweep import sweep
from saddlepoint.workflows.trial import Order
from saddlepoint.workflows.trials import Trials

WINDOW = 100  # trials
REPORTS = 3
AIM = 2.0  # driver time per trial in the last window over that in the one around trial 100
CHANGES = (
    "training.rounds=300",
    "training.evaluate_every=100",
    "search.pruner=none",
    "search.min_rounds=null",
    "confirm.top=1",
    "networks.generator.widths=[4]",
    "networks.critic.widths=[4]",
)


def stub(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    """A curve that falls towards what the rates and the clip allow, and no training."""
    h = Pipeline.parse(order.pipeline).hyperparameters()
    end = 10 + 20 * abs(math.log10(h.lr_critic / h.clip) + 1.5) + order.seed % 97 / 97
    for place in range(1, REPORTS + 2):
        final = place > REPORTS
        round = 100 * min(place, REPORTS)
        metrics = {name: end + 500 / round for name in ("fid", "kid", "recall", "coverage")}
        trace = [] if final else [(round - 100 + step, {"emd": end / step}) for step in range(25, 101, 25)]
        told: dict[str, Any] = {
            "round": round,
            "metrics": metrics,
            "trace": trace,
            "pictures": {},
            "seconds": 0.01 * place,
        }
        report(told | {"best_round": round if final else 0, "final": final})


class Watch:
    """Driver time and memory at the moments at which trials are asked for."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float, float]] = []  # wall, processor's seconds, megabytes

    def __call__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        self.marks.append((time.perf_counter(), time.process_time(), megabytes))

    def window(self, first: int) -> tuple[float, float, float]:
        """Over WINDOW trials: wall and driver milliseconds a trial, megabytes at its end."""
        a, b = self.marks[first], self.marks[min(first + WINDOW, len(self.marks) - 1)]
        n = min(first + WINDOW, len(self.marks) - 1) - first
        return 1e3 * (b[0] - a[0]) / n, 1e3 * (b[1] - a[1]) / n, b[2]


def measure(sampler: str, trials: int) -> tuple[Watch, dict[str, int]]:
    """Runs the sweep in a folder of its own; gives the watch, and what the ledger and MLflow hold at the end."""
    watch, ask = Watch(), Trials.next

    def next(self: Trials) -> Job | None:
        watch()
        return ask(self)

    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Trials.next, sweep_room.work = next, stub  # type: ignore[method-assign]
            records = sweep(
                Pipeline.load("digits-wgan", [*CHANGES, f"search.trials={trials}", f"search.sampler={sampler}"])
            )
            [parent] = sweeps(None)
            runs = children(None, parent.sweep)
        finally:
            Trials.next = ask  # type: ignore[method-assign]
            os.chdir(home)
    found = {
        "ledger": sum(record.state == "complete" and len(record.intermediate) == REPORTS for record in records),
        "mlflow": sum(run.status == "FINISHED" and run.metrics.get("final/fid") is not None for run in runs),
    }
    return watch, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    asked = parser.parse_args()
    assert METRICS["fid"].better == "lower"  # the stub's curves fall
    console = Console(width=120)
    table = Table(title=f"{asked.trials} stub trials, {date.today()}, {os.cpu_count()} cores, Python "
                        f"{platform.python_version()}", title_justify="left")  # fmt: skip
    for column in ("sampler", "around trial", "wall ms a trial", "driver ms a trial", "driver MB", "ledger", "MLflow"):
        table.add_column(column, justify="right")
    verdicts = []
    for sampler in asked.samplers:
        watch, found = measure(sampler, asked.trials)
        early, late = watch.window(WINDOW // 2), watch.window(asked.trials - WINDOW)
        table.add_row(sampler, "100", *(f"{value:.1f}" for value in early))
        table.add_row(sampler, str(asked.trials), *(f"{value:.1f}" for value in late),
                      *(f"{count} complete" for count in found.values()))  # fmt: skip
        ratio = late[1] / early[1]
        good = ratio <= AIM and set(found.values()) == {asked.trials}
        verdicts.append(f"{'PASS' if good else 'MISSED'}  {sampler}: driver time at {asked.trials} over that at 100: "
                        f"{ratio:.2f} (aim: at most {AIM:g}); memory +{late[2] - early[2]:.0f} MB; "
                        f"all complete in ledger and MLflow: {set(found.values()) == {asked.trials}}")  # fmt: skip
    console.print(table)
    for verdict in verdicts:
        console.print(verdict, soft_wrap=True)


if __name__ == "__main__":
    main()

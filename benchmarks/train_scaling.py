"""Rounds a second of one training on one worker and on two, on the CPU, and sweeps of 2-worker trials in a row.

    plain process     no Ray at all
    1 worker, 2 ...   a group of Ray Train's, gloo between its processes

digits-cyclegan with a batch of 64 has convolutions enough for two to share. The networks of digits-wgan are so small
that sending their gradients takes longer than finding them: such trials are better run side by side, one worker each.
Every worker has one thread. The start of a group is not among its seconds; how long it takes stands beside.

--soak N runs N sweeps of 2-worker trials with successive halving, one after another on 4 logical CPUs, and looks after
each whether a placement group or a share of a CPU is left.
"""

import argparse
import math
import os
import platform
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch
from ray.util import placement_group_table
from rich.console import Console
from rich.table import Table

from saddlepoint.errors import SaddleError
from saddlepoint.scaling.cluster import running
from saddlepoint.scaling.executor import rest
from saddlepoint.scaling.group import play
from saddlepoint.scaling.jobs import Resources
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.training.state import Training
from saddlepoint.training.team import here
from saddlepoint.workflows.sweep import sweep

BATCH = {"digits-cyclegan": 64, "digits-wgan": 64}
AIM = {"digits-cyclegan": ">= 1.5", "digits-wgan": ""}  # rounds a second of two workers over the plain process
WARM = 5  # rounds, of each turn's beginning: first steps allocate
LIMIT = 900.0  # seconds after which a sweep of the soak is taken for deadlocked
SOAK = (
    "training.rounds=24",
    "training.evaluate_every=4",
    "training.log_every=4",
    "training.batch_size=32",
    "training.device=cpu",
    "search.trials=3",
    "search.min_rounds=4",
    "search.eta=2",
    "resources.workers=2",
    "networks.generator.widths=[16]",
    "networks.critic.widths=[16]",
)


@dataclass(frozen=True)
class Measured:
    rates: list[float]  # rounds a second, by turn
    start: float  # seconds until the first round


def rounds(payload: tuple[dict[str, Any], float, int], report: Callable[[dict[str, Any]], None]) -> None:
    """Turns of so many seconds; every member of a team plays as many rounds as the first one says."""
    content, seconds, turns = payload
    pipeline, team = Pipeline.parse(content), here()
    torch.set_num_threads(1)
    training = Training(pipeline, 0, Path("never written"), setup(pipeline), team)
    report({"ready": time.time()})
    for _ in range(turns):
        began = time.perf_counter()
        for _ in range(WARM):
            training.play()
        each = (time.perf_counter() - began) / WARM
        count = team.tell(max(WARM, math.ceil(seconds / each)))
        began = time.perf_counter()
        for _ in range(count):
            training.play()
        team.tell(None)  # all have played
        report({"rate": count / (time.perf_counter() - began)})


def measured(name: str, workers: int, seconds: float, turns: int, place: Path) -> Measured:
    """workers: 0 for the plain process."""
    pipeline = Pipeline.load(
        name, ["training.device=cpu", "training.rounds=1000000", f"training.batch_size={BATCH[name]}"]
    )
    began, heard = time.time(), list[dict[str, float]]()
    payload = (pipeline.content(), seconds, turns)
    if workers:
        play(rounds, payload, heard.append, resources=Resources(workers=workers), storage=place)
    else:
        rounds(payload, heard.append)
    return Measured([told["rate"] for told in heard[1:]], heard[0]["ready"] - began)


def scaling(seconds: float, turns: int, console: Console) -> None:
    table = Table(title="Rounds a second, by turns", title_justify="left", box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    for column in ("batch", "median", "least", "most", "over plain", "aim", "start s"):
        table.add_column(column, justify="right", no_wrap=True)
    with tempfile.TemporaryDirectory() as place, running(log=Path(place) / "ray.log"):
        for name, aim in AIM.items():
            setup(Pipeline.load(name, ["training.device=cpu"]))
            plain = 0.0
            for workers, way in enumerate(("plain process", "1 worker", "2 workers")):
                m = measured(name, workers, seconds, turns, Path(place))
                rate = median(m.rates)
                plain = plain or rate
                numbers = (f"{rate:.2f}", f"{min(m.rates):.2f}", f"{max(m.rates):.2f}", f"{rate / plain:.2f}")
                table.add_row(
                    f"{name}, {way}", str(BATCH[name]), *numbers, aim if workers == 2 else "", f"{m.start:.0f}"
                )
    console.print(table)


def soak(count: int, console: Console) -> None:
    """Raises SaddleError if a sweep leaves something behind; ends the process if one does not end."""
    with tempfile.TemporaryDirectory() as place, running(cpus=4, log=Path(place) / "ray.log"):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
        for number in range(1, count + 1):
            pipeline = Pipeline.load("digits-wgan", [*SOAK, f"seed={number}", f"name=soak-{number}"])
            watch = threading.Timer(LIMIT, partial(_deadlocked, number))
            watch.daemon = True
            watch.start()
            began = time.perf_counter()
            records = sweep(pipeline, root=Path(place))
            seconds = time.perf_counter() - began
            watch.cancel()
            if number % 2 == 0:  # every other sweep finds the workers of the one before
                rest()
                _nothing_left()
            states = ", ".join(f"{n} {state}" for state, n in sorted(Counter(r.state for r in records).items()))
            console.print(f"{number:3} of {count}: {seconds:4.0f} s; {states}")
            shutil.rmtree(Path(place) / pipeline.name)
    console.print(f"{count} of {count} ended, with nothing left behind.")


def _deadlocked(number: int) -> None:
    print(f"sweep {number} has not ended after {LIMIT:.0f} s: {ray.available_resources()}", flush=True)
    os._exit(1)


def _nothing_left() -> None:
    until = time.monotonic() + 10  # Ray counts what has become free within seconds
    while True:
        free, whole = ray.available_resources().get("CPU", 0.0), ray.cluster_resources()["CPU"]
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        if free == whole and not groups:
            return
        if time.monotonic() > until:
            raise SaddleError(f"{whole - free:g} CPU and {len(groups)} placement groups are still taken")
        time.sleep(0.2)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--soak", type=int, metavar="N", help="so many sweeps of 2-worker trials instead")
    asked = arguments.parse_args()
    console = Console(highlight=False, width=100)
    if asked.soak:
        soak(asked.soak, console)
    else:
        scaling(asked.seconds, asked.turns, console)
    versions = f"torch {torch.__version__}, ray {ray.__version__}, {os.cpu_count()} CPUs"
    console.print(f"Python {platform.python_version()}, {versions}, {platform.machine()}.")


if __name__ == "__main__":
    main()

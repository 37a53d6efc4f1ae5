"""Each option for speed beside the plain way: the same rounds from the same weights and batches, losses side by side.

A game amplifies rounding, so no option stays at the plain way's numbers for long. The yardstick is `accumulate`, which
in exact arithmetic changes nothing: what another option does beyond it is the option's own.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..spec import Pipeline
from ..training.setup import Setup, setup
from ..training.speed import PLAIN
from ..training.state import Training

ROUNDS = 20
OPTIONS: dict[str, dict[str, Any]] = {
    "eager": {},
    "accumulate: 2": {"training.accumulate": 2},
    "precision: tf32": {"training.precision": "tf32"},
    "precision: bfloat16": {"training.precision": "bfloat16"},
    "channels_last: true": {"training.channels_last": True},
    "compile: default": {"training.compile": "default"},
    "compile: cuda_graphs": {"training.compile": "cuda_graphs"},
}
ON_A_GPU = ("precision: tf32", "compile: cuda_graphs")
PLAINLY = {"training.accumulate": 1, "training.precision": "float32", "training.channels_last": False,
           "training.compile": "none", "training.log_every": 1}  # fmt: skip


@dataclass(frozen=True)
class Parity:
    """One option. Differences: the largest over the players' losses from eager's, as a share of that loss' largest
    value; None for eager, and for what was not played."""

    option: str
    losses: dict[str, float]  # of the last round, by player
    first: float | None = None  # in the first round
    worst: float | None = None  # over all rounds
    milliseconds: float | None = None  # a round, after the first ones
    note: str = ""  # why it was not played


def parity(pipeline: Pipeline, rounds: int = ROUNDS, say: Callable[[str], None] = lambda option: None) -> list[Parity]:
    """Plays so many rounds of the pipeline's own values with each option. Raises UserError: fewer than 1 round.

    say: is told which option comes next.
    """
    if rounds < 1:
        raise UserError(f"--rounds: {rounds} should be at least 1")
    shared = setup(pipeline)
    torch.set_num_threads(pipeline.resources.cpus)
    found: list[Parity] = []
    eager: list[dict[str, float]] = []
    long_enough = {"training.rounds": max(pipeline.training.rounds, 2 * rounds)}
    for option, values in OPTIONS.items():
        say(option)
        if option in ON_A_GPU and shared.device.type != "cuda":
            found.append(Parity(option, {}, note="needs an NVIDIA GPU"))
            continue
        try:
            losses, milliseconds = _played(pipeline.with_values(PLAINLY | values | long_enough), shared, rounds)
        except Exception as error:
            if not values:
                raise
            found.append(Parity(option, {}, note=f"{type(error).__name__}: {error}".splitlines()[0][:200]))
            continue
        finally:
            PLAIN.settle()
        eager = eager or losses
        first, worst = (_difference(losses[:n], eager) if values else None for n in (1, rounds))
        found.append(Parity(option, losses[-1], first, worst, milliseconds))
    return found


def _played(pipeline: Pipeline, shared: Setup, rounds: int) -> tuple[list[dict[str, float]], float]:
    """The players' losses in each round, and the milliseconds of a round when as many more are played."""
    with tempfile.TemporaryDirectory() as folder:
        run = Training(pipeline, pipeline.seed, Path(folder), shared)
        run.plain.speed.settle()
        for _ in range(rounds):
            run.play()
        trace = run.take_trace()
        run.spec = run.spec.model_copy(update={"log_every": 10**9})  # to read a number would wait for the device
        started = time.perf_counter()
        for _ in range(rounds):
            run.play()
        if shared.device.type == "cuda":
            torch.cuda.synchronize(shared.device)
        milliseconds = 1e3 * (time.perf_counter() - started) / rounds
    players = run.game.players
    return [{name: logs[f"loss_{name}"] for name in players} for _, logs in trace], milliseconds


def _difference(losses: list[dict[str, float]], eager: list[dict[str, float]]) -> float:
    scale = {name: max(abs(each[name]) for each in eager) or 1.0 for name in eager[0]}
    return max(
        abs(mine[name] - theirs[name]) / scale[name]
        for mine, theirs in zip(losses, eager, strict=False)
        for name in scale
    )

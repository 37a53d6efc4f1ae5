"""What would run and what it would cost, before anything is started: everything validated, one round really played."""

import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UserError
from ..search.pruners import rungs
from ..spec import Pipeline, ResourcesSpec, SearchSpec, TrainingSpec
from ..training.setup import setup
from ..training.state import CHECKPOINT, Training

WARM, TIMED = 3, 20  # rounds, at most: first steps allocate, and are not what a round costs
ENOUGH = 5.0  # seconds of timing: large networks on a CPU take their time


@dataclass(frozen=True)
class Plan:
    name: str
    device: str
    data: str
    parameters: dict[str, int]  # weights of each network
    trials: int
    rounds: int
    rungs: list[int]  # the evaluations at which trials may be pruned, in rounds
    at_once: int
    retrainings: int
    round_milliseconds: float
    evaluation_seconds: float
    trial_seconds: float
    longest_seconds: float  # of the sweep and its confirmation, if nothing is pruned
    memory_megabytes: float  # peak of one process; of the GPU where there is one
    disk_megabytes: float  # checkpoints of live trials and generators of complete ones


def plan(pipeline: Pipeline) -> Plan:
    """Raises UserError for whatever would stop the sweep; leaves nothing behind."""
    shared = setup(pipeline)
    torch.set_num_threads(pipeline.resources.cpus)
    with tempfile.TemporaryDirectory() as place:
        training = Training(pipeline, pipeline.seed, Path(place), shared)
        round_seconds = _time_round(training)
        start = time.perf_counter()
        subject = training.subject("score")
        training.watch(subject)
        shared.scorer.score(subject, training.objective.names)
        evaluation = time.perf_counter() - start
        training.save()
        checkpoint = (Path(place) / CHECKPOINT).stat().st_size / 1e6
    spec, search = pipeline.training, pipeline.search
    evaluations = -(-spec.rounds // spec.evaluate_every)
    trial = spec.rounds * round_seconds + evaluations * evaluation
    at_once = _side_by_side(pipeline.resources)
    trials = search.trials if search else 1
    retrainings = (pipeline.confirm.top + 1) * pipeline.confirm.seeds if search else 0
    weights = {name: sum(w.numel() for w in net.parameters()) for name, net in training.plain.networks.items()}
    generator = 4e-6 * sum(weights[name] for name in training.game.ships)
    return Plan(
        name=pipeline.name,
        device=str(shared.device),
        data=f"{shared.dataset.name}: {len(shared.dataset.train)} train, {len(shared.dataset.heldout)} held out, "
        f"shape {tuple(shared.dataset.sample_shape)}",
        parameters=weights,
        trials=trials,
        rounds=spec.rounds,
        rungs=_decisions(search, spec) if search else [],
        at_once=at_once,
        retrainings=retrainings,
        round_milliseconds=1e3 * round_seconds,
        evaluation_seconds=evaluation,
        trial_seconds=trial,
        longest_seconds=(-(-trials // at_once) + -(-retrainings // at_once)) * trial,
        memory_megabytes=peak_megabytes(shared.device),
        disk_megabytes=at_once * checkpoint + (trials + retrainings) * generator,
    )


def _side_by_side(needs: ResourcesSpec) -> int:
    """How many trials this machine takes at once."""
    fits = (os.cpu_count() or 1) // needs.cpus
    if needs.gpus:
        fits = min(fits, int(torch.cuda.device_count() / needs.gpus + 1e-9))
    if fits < 1:
        raise UserError(f"resources: a trial asks for {needs.cpus} CPU and {needs.gpus:g} GPU; "
                        f"this machine has {os.cpu_count()} and {torch.cuda.device_count()}")  # fmt: skip
    return min(fits, needs.concurrency or fits)


def _decisions(search: SearchSpec, training: TrainingSpec) -> list[int]:
    """A rung is decided at the first evaluation that reaches it; at the end of a trial nothing is left to save."""
    due = rungs(search.pruner, rounds=training.rounds, first=search.min_rounds, eta=search.eta)
    evaluations = (-(-rung // training.evaluate_every) * training.evaluate_every for rung in due)
    return sorted({round for round in evaluations if round < training.rounds})


def _time_round(training: Training) -> float:
    """Seconds of one round. A diverging configuration is the sentinel's business, not the plan's."""

    def play(rounds: int) -> float:
        """The mean over so many rounds, or over as many as ENOUGH seconds hold."""
        start, played = time.perf_counter(), 0
        while played < rounds and (not played or time.perf_counter() - start < ENOUGH):
            training.play()
            played += 1
            if training.shared.device.type == "cuda":
                torch.cuda.synchronize()
        return (time.perf_counter() - start) / played

    play(WARM)
    return play(TIMED)


def peak_megabytes(device: torch.device) -> float:
    """The most that this process has held so far, on the GPU if that is the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, kilobytes here

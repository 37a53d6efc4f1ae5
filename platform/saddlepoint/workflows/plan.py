"""What would run and what it would cost, before anything is started: everything validated, one round really played.

Loading the pipeline has checked every end of every range by itself. Here each distinct structure that the space
reaches is built on the data and plays a round, so that no worker is the first to find out what does not fit.
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..search.pruners import rungs
from ..spec import Pipeline, SearchSpec, TrainingSpec
from ..spec_resources import ResourcesSpec
from ..training.setup import Setup, setup
from ..training.state import CHECKPOINT, Training
from .disk import size
from .footprint import save_all
from .memory import free_megabytes, peak_megabytes
from .needs import driver_device, needs
from .structures import structures
from .sweep import searched

WARM, TIMED = 3, 20  # rounds, at most: first steps allocate, and are not what a round costs
ENOUGH = 5.0  # seconds of timing: large networks on a CPU take their time


@dataclass(frozen=True)
class Built:
    """One structure of the search space, built and played."""

    values: dict[str, Any]  # of the search space; {}: the pipeline's own
    parameters: dict[str, int]  # weights of each network
    round_milliseconds: float
    memory_megabytes: float  # peak of this process so far; of the GPU where there is one
    disk_megabytes: float  # of a live trial: each file twice, while it is replaced


@dataclass(frozen=True)
class Plan:
    name: str
    device: str
    data: str
    structures: list[Built]  # the pipeline's own first
    trials: int
    rounds: int  # of a trial
    members: int  # of a population, whose trials are pieces of trainings; 0: there is none
    generations: int
    rungs: dict[int, int]  # the evaluations at which trials may be pruned, in rounds: how many trials reach each
    expected_rounds: int  # of all trials together, if each rung keeps its share
    at_once: int
    retrainings: int
    evaluation_seconds: float
    trial_seconds: float
    expected_seconds: float  # of the sweep and its confirmation, pruned as expected
    longest_seconds: float  # if nothing is pruned
    gpu_hours: float  # expected
    memory_megabytes: float  # peak of one trial's process, over all structures
    disk_megabytes: float  # live trials, the generators that are kept, those of the confirmation
    warnings: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, int]:
        return self.structures[0].parameters

    @property
    def round_milliseconds(self) -> float:
        return self.structures[0].round_milliseconds


def plan(pipeline: Pipeline) -> Plan:
    """Raises UserError for whatever would stop the sweep; leaves nothing behind."""
    on_ray = pipeline.search is not None or pipeline.resources.workers > 1
    shared = setup(pipeline, device=driver_device(pipeline, elsewhere=False) if on_ray else None)
    torch.set_num_threads(pipeline.resources.cpus)
    spec, search = pipeline.training, searched(pipeline) if pipeline.search else None
    evaluation, generator = 0.0, 0.0
    built: list[Built] = []
    for values, trial in structures(pipeline):
        with tempfile.TemporaryDirectory() as place:
            training = _built(values, trial, shared, Path(place))
            seconds = _time_round(training, WARM, TIMED) if not built else _time_round(training, 0, 1)
            if not built:
                evaluation = _time_evaluation(training)
            save_all(training)
            if not built:
                generator = (size(Path(place)) - (Path(place) / CHECKPOINT).stat().st_size) / 1e6
            weights = {name: sum(w.numel() for w in net.parameters()) for name, net in training.plain.networks.items()}
            disk = 2 * size(Path(place)) / 1e6
        built.append(Built(values, weights, 1e3 * seconds, peak_megabytes(shared.device), disk))
    evaluations = -(-spec.rounds // spec.evaluate_every)
    seeds = search.seeds if search else 1
    round_seconds = built[0].round_milliseconds / 1e3 + evaluations * evaluation / spec.rounds  # evaluations included
    trials, length = (search.trials if search else 1), spec.rounds  # of a trial
    members, generations = 0, 0
    if search and search.population:
        members, length = search.population.members, search.population.every
        generations = trials // members
    at_once = side_by_side(pipeline.resources)
    retrainings = (pipeline.confirm.top + 1) * pipeline.confirm.seeds if search else 0
    reached = _reached(search, spec, trials) if search else {}
    expected = _expected_rounds(reached, trials, spec.rounds, search.eta if search else 1)
    longest = -(-trials // at_once) * spec.rounds
    if members:
        expected = members * spec.rounds
        longest = -(-members // at_once) * spec.rounds  # a generation waits for its last member
    again = -(-retrainings // at_once) * spec.rounds
    memory = max(each.memory_megabytes for each in built) * seeds
    live = max(each.disk_megabytes for each in built) * seeds
    kept = min(search.keep, trials) * seeds if search else 1
    expected_seconds = (longest if members else seeds * expected / at_once) * round_seconds + again * round_seconds
    found = Plan(
        name=pipeline.name,
        device=str(shared.device),
        data=f"{shared.dataset.name}: {len(shared.dataset.train)} train, {len(shared.dataset.heldout)} held out, "
        f"shape {tuple(shared.dataset.sample_shape)}",
        structures=built,
        trials=trials,
        rounds=length,
        members=members,
        generations=generations,
        rungs=reached,
        expected_rounds=expected,
        at_once=at_once,
        retrainings=retrainings,
        evaluation_seconds=evaluation,
        trial_seconds=seeds * length * round_seconds,
        expected_seconds=expected_seconds,
        longest_seconds=(seeds * longest + again) * round_seconds,
        gpu_hours=expected_seconds * at_once * pipeline.resources.gpus_of_trial / 3600,
        memory_megabytes=memory,
        disk_megabytes=(at_once + members) * live + (kept + retrainings) * generator,
    )
    found.warnings.extend(_warnings(found, pipeline, shared, live))
    return found


def _built(values: dict[str, Any], trial: Pipeline, shared: Setup, place: Path) -> Training:
    try:
        return Training(trial, trial.seed, place, shared)
    except UserError as error:
        raise UserError(f"search.space: with {values}: {error}" if values else str(error)) from error


def _warnings(found: Plan, pipeline: Pipeline, shared: Setup, live: float) -> list[str]:
    """What will not fit, in words; live: megabytes that a live trial takes on the disk."""
    said, search = [], pipeline.search
    resources = pipeline.resources
    if pipeline.training.device == "auto" and found.device == "cpu" and torch.cuda.is_available():
        said.append(
            "device: trials train on the CPU, for they ask for no GPU, and this machine has one: resources.gpus"
        )
    each = resources.workers * found.memory_megabytes
    wanted, free = found.at_once * each, free_megabytes(shared.device, resources.gpus_each)
    if wanted > free:
        fit = max(1, int(free / each))
        said.append(f"memory: {found.at_once} trials at once take up to {wanted:,.0f} MB and {free:,.0f} are free; "
                    f"{fit} fit: resources.concurrency={fit}")  # fmt: skip
    if resources.workers > 1:
        said.append("time: is that of one process with the whole batch; "
                    f"{resources.workers} workers share it, and need some ten seconds to meet")  # fmt: skip
    room = shutil.disk_usage(Path.cwd()).free / 1e6
    if found.disk_megabytes > room:
        said.append(f"disk: up to {found.disk_megabytes:,.0f} MB, and {room:,.0f} are free here")
    if search is None:
        return said
    at_least = found.members + 1 if found.members else found.at_once  # whoever ended may be gone on from
    if search.disk_gb is not None and 1e3 * search.disk_gb < at_least * live:
        fit = int(1e3 * search.disk_gb / live)
        what = f"a population needs {at_least}" if found.members else f"{at_least} would run"
        said.append(f"search.disk_gb: {search.disk_gb:g} GB hold {fit} live trials, and {what}")
    budget = search.budget
    rounds = found.expected_rounds
    if budget.rounds is not None and budget.rounds < rounds:
        said.append(f"search.budget.rounds: {budget.rounds:,} end the search before its {found.trials} trials, "
                    f"which take about {rounds:,}")  # fmt: skip
    if budget.gpu_hours is not None and not resources.gpus_of_trial:
        said.append("search.budget.gpu_hours: never ends the search, for resources.gpus is 0")
    return said


def side_by_side(spec: ResourcesSpec) -> int:
    """How many trials this machine takes at once."""
    asked, cpus, gpus = needs(spec), os.cpu_count() or 1, torch.cuda.device_count()
    fit = asked.at_once([(cpus, gpus)])
    if not fit:
        raise UserError(f"resources: a trial asks for {asked}; this machine has {cpus} CPU and {gpus} GPU")
    return fit


def _reached(search: SearchSpec, training: TrainingSpec, trials: int) -> dict[int, int]:
    """How many trials reach each rung, if it keeps 1/eta of them; hyperband's brackets keep more. A rung is decided
    at the first evaluation that reaches it; at the end of a trial nothing is left to save."""
    due = rungs(search.pruner, rounds=training.rounds, first=search.min_rounds, eta=search.eta)
    evaluations = (-(-rung // training.evaluate_every) * training.evaluate_every for rung in due)
    decisions = sorted({round for round in evaluations if round < training.rounds})
    return {round: max(1, trials // search.eta**place) for place, round in enumerate(decisions)}


def _expected_rounds(reached: dict[int, int], trials: int, rounds: int, eta: int) -> int:
    """Of all trials together: each plays to the first rung, those that a rung keeps to the next one or to the end."""
    total, before, at = 0, 0, trials
    for rung, at in reached.items():
        total += at * (rung - before)
        before = rung
    going_on = max(1, at // eta) if reached else trials
    return total + going_on * (rounds - before)


def _time_evaluation(training: Training) -> float:
    start = time.perf_counter()
    subject = training.subject("score")
    training.watch(subject)
    training.shared.scorer.score(subject, training.objective.names)
    return time.perf_counter() - start


def _time_round(training: Training, warm: int, timed: int) -> float:
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

    if warm:
        play(warm)
    return play(timed)

"""One training, from a pipeline and a seed to a stream of reports. It knows no ray, no mlflow, no optuna.

    for report in train(pipeline, seed=0, folder=Path("runs/a")):
        print(report.round, report.metrics)

A consumer that stops iterating stops the training. The folder holds the checkpoint and the best generator so
far; the same call on the same folder goes on from there, and on the CPU the numbers are those of a run that
was never stopped.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from ..generator import load_generator, save_generator
from ..metrics.catalogue import METRICS
from ..remote import Place
from ..spec import Pipeline
from .look import look
from .sentinel import Diverged
from .setup import Setup, setup
from .state import Trace, Training
from .team import ALONE, Team


@dataclass(frozen=True)
class Report:
    """What a training has to say at one round.

    The checkpoint is written only after the report was taken: whoever is interrupted in between hears it
    again, never not at all.
    """

    round: int
    metrics: dict[str, float]  # scores of the generator of this round; if final, of the best one
    trace: Trace  # the logs since the last report: (round, means over the rounds since the entry before)
    pictures: dict[str, bytes] = field(default_factory=dict)  # PNG, from the same noise at every round
    seconds: float = 0.0  # of this training so far, evaluations included, over all its lives
    best_round: int = 0
    final: bool = False


def train(
    pipeline: Pipeline,
    *,
    seed: int,
    folder: Place,
    shared: Setup | None = None,
    until: int | None = None,
    inherit: Place | None = None,
    team: Team = ALONE,
) -> Iterator[Report]:
    """Plays all rounds, with a report at every evaluation and a last, final one.

    team: each of its members makes this call. They give reports at the same rounds, all but the first of them empty
    ones; only the first reads and writes the folder.

    until: the round at which it ends, checkpoint written, with the decay of the whole (population-based training plays
    a training in pieces). inherit: the folder of an earlier piece, maybe of another run, to begin from.

    The final report scores the best generator (by the objective) with every metric and on noise of its own:
    the noise that chose it does not judge it. Sets torch's number of threads to the trial's CPUs.

    Raises:
        Diverged: the sentinel stops the run.
        UserError: the pipeline cannot run, or the folder belongs to another one.
    """
    shared = shared or setup(pipeline)
    torch.set_num_threads(pipeline.resources.cpus)
    start = time.perf_counter()
    run = Training(pipeline, seed, folder, shared, team)
    run.plain.speed.settle()
    run.load(inherit)
    spec = pipeline.training
    end = min(until or spec.rounds, spec.rounds)
    save_every = spec.checkpoint_every or spec.evaluate_every
    start -= run.seconds
    while run.round < end:
        run.play()
        run.seconds = time.perf_counter() - start
        if run.round % spec.evaluate_every == 0 or run.round == end:
            report = _evaluate(run)
            run.seconds = time.perf_counter() - start
            waiting = time.perf_counter()
            yield report
            start += time.perf_counter() - waiting  # the consumer's time is not the training's
            run.save()
        elif run.round % save_every == 0:
            run.save()
    yield _final(run, start)


def _evaluate(run: Training) -> Report:
    """By the first of the team; the others hear whether it goes on."""
    report = verdict = None
    if run.team.leads:
        try:
            report = _judge(run)
        except Diverged as reason:
            verdict = reason
    if (verdict := run.team.tell(verdict)) is not None:
        raise verdict
    return report or _report(run, {}, {})


def _judge(run: Training) -> Report:
    scorer = run.shared.scorer
    generator = run.generator
    subject = run.subject("score", generator)
    run.watch(subject)
    cheap = [name for name in scorer.metrics if METRICS[name].cost == "cheap" and not METRICS[name].per_class]
    metrics = scorer.score(subject, list(dict.fromkeys([*run.objective.names, *cheap])))
    run.sentinel.see_logs(run.round, {name: metrics[name] for name in run.objective.names})
    if run.improves(metrics):
        save_generator(run.folder, generator.networks, run.card)
    return _report(run, metrics, look(generator, run.shared.dataset))


def _final(run: Training, start: float) -> Report:
    if not run.team.leads:
        return _report(run, {}, {}, final=True)
    best = load_generator(run.folder, run.shared.device)
    scorer = run.shared.scorer
    names = dict.fromkeys([*scorer.metrics, *run.objective.names])  # what is only scored where it is asked for, too
    metrics = scorer.score(run.subject("final", best), list(names))
    run.seconds = time.perf_counter() - start
    return _report(run, metrics, {}, final=True)


def _report(run: Training, metrics: dict[str, float], pictures: dict[str, bytes], final: bool = False) -> Report:
    best_round = 0 if run.best is None else int(run.best["round"])
    return Report(run.round, metrics, run.take_trace(), pictures, run.seconds, best_round, final)

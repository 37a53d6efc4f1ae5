"""One configuration, here or on several workers: the same training that a trial runs, tracked as a run of its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..errors import SaddleError
from ..remote import Place
from ..spec import Pipeline
from ..tracking.tracker import Tracker
from ..training.loop import Report, train
from ..training.sentinel import Diverged
from ..training.setup import setup
from ..training.state import Training
from .folder import apart, located, settle
from .memory import peak_megabytes
from .provenance import run_tags

Progress = Callable[[Pipeline], AbstractContextManager[Callable[[Report], None]]]


@dataclass(frozen=True)
class Trained:
    folder: Place  # holds the best generator
    scores: dict[str, float]
    floor: dict[str, float]
    seconds: float
    best_round: int
    memory_megabytes: float  # the peak of the process, of several the first's; of the GPU where there is one


def train_here(pipeline: Pipeline, folder: Path, *, progress: Progress) -> Trained:
    """Trains the pipeline's own values, or goes on from the folder's checkpoint: in this process, or on as many workers
    as the pipeline asks for. Raises SaddleError if it diverges, UserError if no machine has room for it.

    What several workers write lies apart, below SADDLE_CHECKPOINTS, if that is set when the training begins."""
    together, begun = pipeline.resources.workers > 1, (folder / "tracking").exists()
    if together:
        from . import workers  # and with it Ray, which one worker does without
    elsewhere = apart(folder.name) if together and not begun else None
    shared = setup(pipeline, device=workers.device(pipeline) if together else None)
    # In memory: what does not fit is said before a run is begun.
    Training(pipeline, pipeline.seed, folder, shared.on_cpu if together else shared)
    key, last, memory = "train", None, 0.0
    if not begun:
        settle(folder, elsewhere)
    at = located(folder.absolute())
    with (
        workers.ready(pipeline, folder) if together else nullcontext(),
        Tracker(folder / "tracking", tracking_uri=None, experiment=pipeline.experiment) as tracker,
    ):
        tracker.start_run(
            key,
            name=folder.name,
            params=pipeline.parameters(),
            tags={"saddle.kind": "train", **run_tags(pipeline, shared)},
        )
        tracker.artifact(key, "pipeline.yaml", pipeline.yaml())

        def rest() -> None:
            tracker.finish(key, "KILLED")
            tracker.drain(5.0)

        try:
            with progress(pipeline) as advance:

                def take(report: Report, megabytes: float) -> None:
                    nonlocal last, memory
                    log_report(tracker, key, report)
                    advance(report)
                    last, memory = report, megabytes

                if together:
                    workers.train(pipeline, at, take, at_rest=rest)
                else:
                    for report in train(pipeline, seed=pipeline.seed, folder=at, shared=shared):
                        take(report, peak_megabytes(shared.device))
        except BaseException as error:
            reason = str(error) if isinstance(error, SaddleError) else type(error).__name__
            tracker.tag(key, {"saddle.reason": reason, "saddle.outcome": _outcome(error)})
            tracker.finish(key, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            if isinstance(error, Diverged):
                raise SaddleError(f"the training diverged: {error}") from error
            raise
        tracker.finish(key, "FINISHED")
    assert last is not None  # a training always ends with its final report
    return Trained(at, last.metrics, shared.scorer.floor(), last.seconds, last.best_round, memory)


def _outcome(error: BaseException) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def log_report(tracker: Tracker, key: str, report: Report) -> None:
    """The logs at their rounds, the scores at the report's; the final ones one step later, in groups of their own."""
    for round, logs in report.trace:
        tracker.log(key, round, logs)
    if report.final:
        scores = {_grouped(name): value for name, value in report.metrics.items()}
        tracker.log(key, report.round + 1, scores | {"final/best_round": report.best_round})
    else:
        tracker.log(key, report.round, report.metrics | {"seconds": report.seconds})
    for name, png in report.pictures.items():
        tracker.picture(key, name, report.round, png)


def _grouped(name: str) -> str:
    """Where MLflow's UI shows a final score: it makes a section of what stands before the slash."""
    return f"final classes/{name}" if name.startswith("class_share_") else f"final/{name}"

"""One training on several workers of a Ray cluster, or of this machine: every one plays what a trial would play."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import SaddleError, UserError
from ..remote import Place, place
from ..scaling import cluster
from ..scaling.executor import rest
from ..scaling.group import play
from ..scaling.places import fitting
from ..scaling.watch import watching
from ..search.records import Outcome
from ..spec import Pipeline
from ..training.loop import Report
from ..training.sentinel import Diverged
from ..training.setup import choose_device
from .failures import Failures
from .folder import CHECKPOINTS
from .memory import peak_megabytes
from .needs import driver_device, needs
from .trial import Order, work

MEGABYTES = "megabytes"  # in a report: the peak of the process that made it


def device(pipeline: Pipeline) -> str:
    """On which the driver computes. Raises UserError for a GPU that no worker would see."""
    return driver_device(pipeline, elsewhere=cluster.elsewhere())


@contextmanager
def ready(pipeline: Pipeline, folder: Path) -> Iterator[None]:
    """With Ray running, and room on it for the training. Raises UserError if there is none, and leaves nothing."""
    log, absent = folder / "ray.log", [place for place in (folder, *folder.parents) if not place.exists()]
    with ExitStack() as stack:
        try:
            stack.enter_context(cluster.running(log=log))
            fitting(needs(pipeline.resources), "the training")
            rest()  # those of an earlier sweep would keep the room
        except UserError:
            stack.close()
            if folder in absent:
                log.unlink(missing_ok=True)  # what Ray said while it started
            for place in absent:
                with suppress(OSError):  # it was not made, or somebody else works in it
                    place.rmdir()
            raise
        yield


def train(
    pipeline: Pipeline, folder: Place, take: Callable[[Report, float], None], *, at_rest: Callable[[], None]
) -> None:
    """Calls `take` with every report, and the megabytes that the first worker has held so far. Every node finds the
    folder under its name.

    A worker that is lost takes the others with it; the training goes on from its checkpoint with new ones, as often as
    it gets any further. `at_rest` is called if the local Ray dies, before this process ends.

    Raises:
        Diverged: the sentinel stops the run.
        SaddleError: the memory does not suffice, or the workers die again and again.
    """
    order = Order(pipeline.content(), pipeline.seed, str(folder))
    failures, reached = Failures(limit=1), 0
    failure: SaddleError | None = None

    def hear(values: dict[str, Any]) -> None:
        nonlocal failure, reached
        if (reason := values.get(Outcome.DIVERGED.value)) is not None:
            failure = Diverged(reason)
        elif (reason := values.get(Outcome.OUT_OF_MEMORY.value)) is not None:
            failure = SaddleError(f"out of memory: {reason}")
        else:
            failures.heard(0)
            megabytes = values.pop(MEGABYTES)
            report = Report(**values)
            reached = report.round
            take(report, megabytes)

    with watching(at_rest):
        while True:
            end = play(_work, order, hear, resources=needs(pipeline.resources), storage=folder)
            if failure is not None:
                raise failure
            if end.how == "done":
                return
            if end.how == "memory":
                raise SaddleError(f"out of memory: {end.text}")
            if not failures.lose(0):
                raise SaddleError(f"its workers died {failures.lost[0]} times in a row at round {reached}: {end.text}")


def _work(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    at = place(order.folder)
    if isinstance(at, Path) and not at.is_dir():  # the caller has made it
        raise SaddleError(f"{socket.gethostname()} does not see the folder {at}, which every node must see; "
                          f"give one that they do with --out, or set {CHECKPOINTS}")  # fmt: skip
    device = choose_device(Pipeline.parse(order.pipeline).training.device)
    work(order, lambda values: report({**values, MEGABYTES: peak_megabytes(device)}))

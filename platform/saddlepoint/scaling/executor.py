"""Ray Tune executes jobs; it decides nothing.

A source says what to run next, hears every report and may answer "stop". Tune places the jobs on warm worker
processes: a worker that is done takes the next job, so that torch is imported once a worker, not once a job. Between
two executions workers rest for a while, and the next one finds them warm.
A job that wants several workers starts them from its process as a group of its own (`group.py`).
Tune repeats nothing and keeps nothing of its own state: what is to run again, after the loss of a worker or of
everything, is the source's to say.
"""

import atexit
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from saddlepoint.remote import Place
from saddlepoint.scaling.cluster import before_leaving, redirect
from saddlepoint.scaling.desk import Run, Turn
from saddlepoint.scaling.jobs import End, Execution, Resources, Source
from saddlepoint.scaling.places import fitting
from saddlepoint.scaling.tuning import Tuning


def execute(source: Source, run: Run, *, resources: Resources, storage: Place, log: Path) -> Execution:
    """Runs the source's jobs, each as `run(payload, report)` on a worker, or on each of its workers, until there are
    no more.

    Needs a started cluster. `report` takes a dict of whatever can be pickled and returns when the source has
    answered; if the answer is to stop, it raises SystemExit. Of several workers the first one is heard, and all wait
    for the answer. `storage` is a folder for Tune's scratch files, shared by all nodes.

    After Ctrl-C the unfinished jobs are stopped, but not ended, and `interrupted` is true. An exception from
    the source stops everything and is raised again here. Raises UserError if no node has what a job needs.
    """
    redirect(log)
    turn = Turn(source, run, log)
    started = time.perf_counter()
    tuning = _began(turn, resources, fitting(resources), storage)
    try:
        with _ctrl_c(turn):
            turn.over.wait()
            if turn.closed:
                tuning.close()
    except KeyboardInterrupt:  # pressed twice
        turn.interrupted = True
        _open.clear()  # nobody waits until it has ended
    if turn.failure is not None:
        raise turn.failure
    if not turn.interrupted:
        if tuning.error is not None:
            raise tuning.error
        for trial in list(turn.out):
            turn.end(trial, End("dropped", f"dropped by Ray Tune; see {log}"))
    return Execution(
        ended=tuple(turn.ended),
        interrupted=turn.interrupted,
        workers=tuning.desk.workers,
        wall=time.perf_counter() - started,
        busy=sum(turn.busy.values()),
    )


_open: dict[Any, Tuning] = {}  # the run whose workers are warm, by what would let another execution use them


def _began(turn: Turn, resources: Resources, workers: int, storage: Place) -> Tuning:
    key = resources, workers, ray.get_runtime_context().get_job_id()
    if (tuning := _open.get(key)) is not None and tuning.desk.take(turn):
        return tuning
    rest()
    tuning = _open[key] = Tuning(resources, workers, storage)
    tuning.desk.take(turn)
    tuning.start()
    return tuning


@atexit.register
@before_leaving
def rest() -> None:
    """Ends the workers that are warm, and frees what they hold."""
    while _open:
        _open.popitem()[1].close()


@contextmanager
def _ctrl_c(turn: Turn) -> Iterator[None]:
    """It ends the execution in an orderly way, pressed twice at once. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(*_: Any) -> None:
        turn.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

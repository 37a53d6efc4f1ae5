"""What tracking costs a sweep: the seconds that the driver spends in calls of the Tracker, as a share of those that
its trials train; and the CPU time of the thread that sends, as a share of theirs. The aim is below 2 % for the calls.

    python benchmarks/tracking_cost.py
"""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from saddlepoint.scaling.jobs import End, Execution, Source
from saddlepoint.spec import Pipeline
from saddlepoint.tracking.sender import Sender
from saddlepoint.tracking.tracker import Tracker
from saddlepoint.workflows import sweep as sweep_room

CHANGES = (
    *("training.device=cpu", "training.rounds=400", "training.evaluate_every=50", "training.log_every=10"),
    *("search.trials=4", "search.sampler=random", "search.pruner=none"),
)
CALLS = ("start_run", "log", "picture", "artifact", "tag", "finish")


def in_process(source: Source, run: Callable[..., None], **_: Any) -> Execution:
    """One trial after the other in this process: no Ray, whose share would hide what is measured."""
    ended, began = [], time.thread_time()
    while (job := source.next()) is not None:
        run(job.payload, lambda report, number=job.number: source.result(number, report))
        source.ended(job.number, End("done"))
        ended.append(job.number)
    return Execution(tuple(ended), interrupted=False, workers=1, wall=1.0, busy=time.thread_time() - began)


def main() -> None:
    spent, sending, counted = 0.0, 0.0, 0
    main_thread = threading.main_thread()

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def measured(*arguments: Any, **named: Any) -> Any:
            nonlocal spent, counted
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                if threading.current_thread() is main_thread:
                    spent, counted = spent + time.perf_counter() - began, counted + 1

        return measured

    for name in CALLS:
        setattr(Tracker, name, timed(getattr(Tracker, name)))
    loop = Sender.run

    def run(self: Sender) -> None:
        nonlocal sending
        try:
            loop(self)
        finally:
            sending += time.thread_time()

    Sender.run = run  # type: ignore[method-assign]
    working = 0.0

    def execute(source: Source, run: Callable[..., None], **_: Any) -> Execution:
        nonlocal working
        done = in_process(source, run)
        working = done.busy
        return done

    sweep_room.execute = execute
    sweep_room.cluster.running = lambda **_: sweep_room.nullcontext()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        trials = sweep_room.sweep(Pipeline.load("digits-wgan", list(CHANGES)))
        os.chdir("/")
    seconds = sum(trial.attrs["seconds"] for trial in trials)
    print(f"{len(trials)} trials, {seconds:.1f} s of training; {counted} calls of the tracker")
    print(f"driver, in calls of the tracker   {spent:6.3f} s   {spent / seconds:6.2%} of the trials' seconds")
    print(f"CPU of the thread that sends      {sending:6.3f} s   {sending / working:6.2%} of their CPU time")


if __name__ == "__main__":
    main()

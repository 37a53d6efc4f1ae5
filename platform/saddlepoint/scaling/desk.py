"""Stands between Tune and the sources: what each free worker does next, and what was heard of it.

Tune's run stays open from one execution to the next. A worker for which there is no job rests: it keeps its process,
and with it torch, and asks again and again. So the generations of a population, and the confirmation after a search,
find their workers warm.
"""

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle

from saddlepoint.scaling import group
from saddlepoint.scaling.jobs import End, Job, Report, Source

KEPT = 60.0  # seconds without any execution after which the workers end, and leave the cluster to others
REST = 0.25  # seconds between two questions of a worker that rests
FEWER = 0.02  # the same for each of the workers: however many rest, the driver has little to do with them

# What a worker sends: a report, or how the job ended; and the seconds worked so far.
REPORT, END, BUSY = "saddle_report", "saddle_end", "saddle_busy"
Run = Callable[[Any, Report], None]
Process = tuple[str, int]  # host, process id


class Task:
    """What a trial of Tune's does: a job, or with a `pause` between two questions of so many seconds, nothing.

    Sealed on its way through Tune, which copies, formats and stores what it can look into.
    """

    def __init__(self, name: str, content: Any = None, pause: float | None = None) -> None:
        self.name, self.pause = name, pause
        self._content = cloudpickle.dumps(content)

    def __repr__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: dict[int, Any]) -> "Task":
        return self

    def content(self) -> Any:
        return pickle.loads(self._content)


class Turn:
    """One execution: the jobs that are out, and what was heard of them."""

    def __init__(self, source: Source, run: Run, log: Path) -> None:
        self.source, self.run, self.log = source, run, log
        self.out: dict[str, int] = {}  # Tune's trial id: job number
        self.crowds: dict[int, float] = {}  # of the jobs that are out
        self.held: Job | None = None  # waits until fewer are out
        self.dry = False  # the source had none; it is asked again when one that is out has ended
        self.ends: dict[int, End] = {}  # as the workers told them
        self.busy: dict[int, float] = {}
        self.ended: list[int] = []
        self.interrupted = False
        self.failure: BaseException | None = None
        self.over = threading.Event()

    @property
    def closed(self) -> bool:
        return self.interrupted or self.failure is not None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Keeps the source's error for `execute` to raise: Tune would wrap it, or log it and go on."""
        try:
            yield
        except Exception as error:
            self.failure = error

    def waiting(self, workers: int) -> Job | None:
        """The job that may begin now beside those that are out."""
        if len(self.out) >= self.room(workers):
            return None
        if self.held is None and not self.dry and not self.closed:
            with self.asking():
                self.held = self.source.next()
                self.dry = self.held is None
        if self.closed or self.held is None or len(self.out) >= self.room(workers, self.held.crowd):
            return None
        return self.held

    @property
    def done(self) -> bool:
        return self.dry and not self.out

    def room(self, workers: int, crowd: float = 1.0) -> int:
        """How many of the workers may be at work."""
        return max(1, int(workers * min([crowd, *self.crowds.values()])))

    def give(self, trial: str, job: Job) -> Task:
        self.held = None
        self.out[trial], self.crowds[job.number] = job.number, job.crowd
        return Task(str(job.number), (self.run, job.payload))

    def hear(self, trial: str, content: dict[str, Any]) -> bool:
        """Whether the source wants the job to stop."""
        # Taken out of the result, of which Tune keeps the last one of every trial.
        report, end, busy = (content.pop(key, None) for key in (REPORT, END, BUSY))
        number = self.out[trial]
        self.busy[number] = busy
        if report is None:
            if end is not None:
                self.ends[number] = end
            return False
        with self.asking():
            return self.source.result(number, pickle.loads(report))
        return False

    def end(self, trial: str, end: End) -> None:
        number = self.out.pop(trial)
        self.crowds.pop(number)
        self.dry = False
        told = self.ends.pop(number, end)
        if self.failure is not None or (self.interrupted and (end.how != "done" or told.how == "lost")):
            return  # it was not the job that ended
        with self.asking():
            self.source.ended(number, told)
            self.ended.append(number)


class Desk:
    """What Tune asks, for one execution after another.

    letters: the mailbox of jobs on several workers; None where they have one.
    """

    def __init__(self, workers: int, letters: Any) -> None:
        self.workers, self.letters = workers, letters
        self.trials: set[str] = set()  # Tune's ids of all jobs that were given out
        self.turn: Turn | None = None
        self.closed = False
        self._at: dict[str, Process | None] = {}  # the worker of each trial that was given out; None: not yet heard of
        self._free: set[Process] = set()  # workers that have done what they had to
        self._resting: set[str] = set()
        self._since = time.monotonic()
        self._lock = threading.Lock()  # of `turn` and `closed`

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into snapshots, which nobody will read

    def take(self, turn: Turn) -> bool:
        """Lets an execution begin; False if Tune's run is over."""
        with self._lock:
            if not self.closed:
                self.turn = turn
            return not self.closed

    def close(self) -> None:
        """Ends the execution that goes on, and Tune's run."""
        with self._lock:
            self.closed = True
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            turn, self.turn, self._since = self.turn, None, time.monotonic()
        if turn is not None:
            turn.over.set()

    @property
    def closing(self) -> bool:
        """Whether Tune shall stop all that it runs, and end."""
        with self._lock:
            if self.turn is None and time.monotonic() - self._since > KEPT:
                self.closed = True
            return self.closed or (self.turn is not None and self.turn.closed)

    def next(self, trial: str) -> Task | None:
        """What a worker does that is free, or is to be started; None: nothing, one that is free may end."""
        # No job is asked for before a worker is free: what it should be depends on how the others go.
        if self.closing or len(self._at) >= self.workers:
            return None
        turn = self.turn
        if turn is not None and (job := turn.waiting(self.workers)) is not None:
            self._at[trial] = None
            self.trials.add(trial)
            return turn.give(trial, job)
        if turn is not None and turn.done:
            self._leave()
        # None is started only to rest: whoever is free goes to a trial that has no worker yet.
        if len(self._free) <= list(self._at.values()).count(None) or len(self._at) >= self._room:
            return None
        self._at[trial] = None
        self._resting.add(trial)
        return Task("rest", pause=max(REST, FEWER * self.workers))

    @property
    def _room(self) -> int:
        return self.workers if self.turn is None else self.turn.room(self.workers)

    def hear(self, trial: str, content: dict[str, Any]) -> bool:
        """Whether Tune shall end this trial."""
        turn, worker = self.turn, (content["hostname"], content["pid"])
        self._at[trial] = worker
        self._free.discard(worker)
        if trial in self._resting:  # it is called to a job, or gives way to one that wants to be alone
            return turn is not None and (turn.waiting(self.workers) is not None or len(self._at) > self._room)
        if turn is None:  # it was left in the meantime
            return True
        ended = END in content
        stop = turn.hear(trial, content)
        if ended or turn.failure is not None:
            return True
        if stop and self.letters is not None:
            # Tune would end the job's process before it has ended its group.
            ray.get(self.letters.decide.remote(trial, True))
            return False
        return stop

    def end(self, trial: str, end: End) -> None:
        worker = self._at.pop(trial, None)
        if worker is not None and end.how == "done":
            self._free.add(worker)
        if trial in self._resting:
            self._resting.remove(trial)
            return
        if self.letters is not None:
            group.clear([trial])  # if the job's process was lost, nobody else does
        if self.turn is not None:
            self.turn.end(trial, end)

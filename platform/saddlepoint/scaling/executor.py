"""Ray Tune executes jobs; it decides nothing.

A source says what to run next, hears every report and may answer "stop". Tune places the jobs on warm worker
processes: a worker that is done takes the next job, so that torch is imported once a worker, not once a job.
A job that wants several workers starts them from its process as a group of its own (`group.py`).
Tune repeats nothing and keeps nothing of its own state: what is to run again, after the loss of a worker or of
everything, is the source's to say.
"""

import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from saddlepoint.errors import SaddleError
from saddlepoint.remote import Place, discard
from saddlepoint.scaling import group, mailbox
from saddlepoint.scaling.cluster import redirect
from saddlepoint.scaling.jobs import End, Execution, Job, LastReport, Report, Resources, Source
from saddlepoint.scaling.places import fitting, starter, worker
from saddlepoint.scaling.settings import settled, stored
from saddlepoint.scaling.watch import died, verdict


def execute(
    source: Source,
    run: Callable[[Any, Report], None],
    *,
    resources: Resources,
    storage: Place,
    log: Path,
) -> Execution:
    """Runs the source's jobs, each as `run(payload, report)` on a worker, or on each of its workers, until there are
    no more.

    Needs a started cluster. `report` takes a dict of whatever can be pickled and returns when the source has
    answered; if the answer is to stop, it raises SystemExit. Of several workers the first one is heard, and all wait
    for the answer. `storage` is a folder for Tune's scratch files, shared by all nodes.

    After Ctrl-C the unfinished jobs are stopped, but not ended, and `interrupted` is true. An exception from
    the source stops everything and is raised again here. Raises UserError if no node has what a job needs.
    """
    redirect(log)
    desk = _Desk(source, fitting(resources), mailbox.make() if resources.workers > 1 else None)
    scratch = storage / "tune"
    discard(scratch)
    started = time.perf_counter()
    try:
        with settled(_settings(desk.workers)), _signals(desk):
            hooks = _Asking(desk), _Hearing(desk), _Ending(desk, log)
            work = _on_worker(run, resources, scratch, desk.letters)
            _tuner(work, starter(resources, desk.workers), *hooks, scratch).fit()
    except KeyboardInterrupt:  # pressed twice
        desk.interrupted = True
    finally:
        if desk.letters is not None:
            group.clear(desk.trials)  # Tune ends the process of a job that it stops, not what that has started
            ray.kill(desk.letters)
        discard(scratch)
    if desk.failure is not None:
        raise desk.failure
    if not desk.interrupted:
        for trial in list(desk.out):
            desk.end(trial, End("dropped", f"dropped by Ray Tune; see {log}"))
    return Execution(
        ended=tuple(desk.ended),
        interrupted=desk.interrupted,
        workers=desk.workers,
        wall=time.perf_counter() - started,
        busy=sum(desk.busy.values()),
    )


def _settings(jobs: int) -> dict[str, str]:
    return {
        "TUNE_MAX_PENDING_TRIALS_PG": str(jobs),  # the first workers start together, not one after another
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # no snapshots
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # see _signals
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


# What a worker sends: a report, or how the job ended; and the seconds worked so far.
_REPORT, _END, _BUSY = "saddle_report", "saddle_end", "saddle_busy"


def _on_worker(
    run: Callable[[Any, Report], None], resources: Resources, storage: Place, letters: Any
) -> Callable[[dict[str, Any]], None]:
    def play(payload: Any, report: Report) -> End:
        try:
            run(payload, report)
        except LastReport as last:
            report(last.values)
        return End("done")

    def play_together(payload: Any, report: Report) -> End:
        name = tune.get_context().get_trial_id()

        def hear(values: dict[str, Any]) -> None:
            report(values)
            if ray.get(letters.decided.remote(name)):
                raise SystemExit

        each = worker(resources)
        try:
            return group.play(run, payload, hear, resources=each, storage=storage, mailbox=letters, name=name)
        except SystemExit:
            return End("done")

    def work(config: dict[str, Any]) -> None:
        # A stopped job may still be closing its files when its worker is given the next one. By default Tune
        # waits 2 s for it, and then drops the next job on the floor.
        os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "600"
        started, waited = time.perf_counter(), 0.0

        def send(content: dict[str, Any]) -> None:
            nonlocal waited
            now = time.perf_counter()
            tune.report({**content, _BUSY: now - started - waited})
            waited += time.perf_counter() - now

        def report(values: dict[str, Any]) -> None:
            send({_REPORT: cloudpickle.dumps(values)})  # sealed: Tune would walk through it, and keep it

        try:
            end = (play if resources.workers == 1 else play_together)(config["job"].payload(), report)
        except Exception:
            end = End("error", traceback.format_exc())
        send({_END: end})

    return work


class _Sealed:
    """A job on its way through Tune, which copies, formats and stores what it can look into."""

    def __init__(self, job: Job) -> None:
        self.number, self._payload = job.number, cloudpickle.dumps(job.payload)

    def __repr__(self) -> str:
        return str(self.number)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Sealed":
        return self

    def payload(self) -> Any:
        return pickle.loads(self._payload)


class _Desk:
    """Stands between Tune and the source: the jobs that are out, and what was heard of them."""

    def __init__(self, source: Source, workers: int, letters: Any) -> None:
        self.source, self.workers = source, workers
        self.letters = letters  # the mailbox of jobs on several workers; None where they have one
        self.trials: set[str] = set()  # Tune's ids of all that were given out
        self.out: dict[str, int] = {}  # Tune's trial id: job number
        self.crowds: dict[int, float] = {}  # of the jobs that are out
        self.held: Job | None = None  # waits until fewer are out
        self.dry = False  # the source had none; it is asked again when one that is out has ended
        self.ends: dict[int, End] = {}  # as the workers told them
        self.busy: dict[int, float] = {}
        self.ended: list[int] = []
        self.interrupted = False
        self.failure: BaseException | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into snapshots, which nobody will read

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

    def next(self, trial: str) -> dict[str, Any] | str | None:
        """The job as Tune's config; None: not now; FINISHED: nothing will come any more."""
        # No job is asked for before a worker is free: what it should be depends on how the others go.
        if len(self.out) >= self._room():
            return None
        if self.held is None and not self.dry and not self.closed:
            with self.asking():
                self.held = self.source.next()
                self.dry = self.held is None
        if self.closed or (self.dry and not self.out):
            return str(Searcher.FINISHED)
        if self.held is None or len(self.out) >= self._room(self.held.crowd):
            return None
        job, self.held = self.held, None
        self.out[trial], self.crowds[job.number] = job.number, job.crowd
        self.trials.add(trial)
        return {"job": _Sealed(job)}

    def _room(self, crowd: float = 1.0) -> int:
        return max(1, int(self.workers * min([crowd, *self.crowds.values()])))

    def hear(self, trial: str, content: dict[str, Any]) -> bool:
        # Taken out of the result, of which Tune keeps the last one of every trial.
        report, end, busy = (content.pop(key, None) for key in (_REPORT, _END, _BUSY))
        number = self.out[trial]
        self.busy[number] = busy
        if report is None:
            if end is not None:
                self.ends[number] = end
            return True
        with self.asking():
            stop = self.source.result(number, pickle.loads(report))
            if self.letters is None or not stop:
                return stop
            # Tune would end the job's process before it has ended its group.
            ray.get(self.letters.decide.remote(trial, True))
            return False
        return True

    def end(self, trial: str, end: End) -> None:
        number = self.out.pop(trial)
        if self.letters is not None:
            group.clear([trial])  # if the job's process was lost, nobody else does
        self.crowds.pop(number)
        self.dry = False
        told = self.ends.pop(number, end)
        if self.failure is not None or (self.interrupted and (end.how != "done" or told.how == "lost")):
            return  # it was not the job that ended
        with self.asking():
            self.source.ended(number, told)
            self.ended.append(number)


class _Asking(Searcher):  # type: ignore[misc]
    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self._desk.next(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Heard by `_Ending`, which is also told why."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """There is nothing to save."""


class _Hearing(tune.Stopper):  # type: ignore[misc]
    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._desk.hear(trial_id, result)

    def stop_all(self) -> bool:
        return self._desk.closed


class _Ending(tune.Callback):  # type: ignore[misc]
    def __init__(self, desk: _Desk, log: Path) -> None:
        self._desk, self._log = desk, log

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._desk.end(trial.trial_id, End("done"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        if (name := died(patience=1.0)) is not None and self._desk.failure is None:
            self._desk.failure = SaddleError(verdict(name))  # it was not the job that ended
        self._desk.end(trial.trial_id, _as_end(error, self._log))


def _as_end(error: Exception, log: Path) -> End:
    """What Tune says of a trial that ended in an error of Ray's: those of the job itself come as a report."""
    text = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return End("memory", f"its node ran out of memory, and Ray ended its worker; see {log}")
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.NodeDiedError):
        return End("lost", f"worker lost: its process was killed or crashed; see {log}")
    return End("error", text)


def _tuner(
    work: Callable[[dict[str, Any]], None],
    resources: dict[str, float],
    asking: _Asking,
    hearing: _Hearing,
    ending: _Ending,
    scratch: Place,
) -> tune.Tuner:
    def name(trial: Any) -> str:
        return str(trial.config["job"].number)

    return tune.Tuner(
        tune.with_resources(work, resources),
        tune_config=tune.TuneConfig(
            search_alg=asking,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=name,
            trial_dirname_creator=name,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            **stored(scratch.parent),
            stop=hearing,
            callbacks=[ending],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


@contextmanager
def _signals(desk: _Desk) -> Iterator[None]:
    """Ctrl-C ends the execution in an orderly way, pressed twice at once. In the main thread only.

    Tune's own handlers outlive its runs, so what was there before is put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}

    def interrupt(*_: Any) -> None:
        desk.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

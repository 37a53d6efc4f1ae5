"""One run of Ray Tune, which may serve several executions: its hooks, and what its workers do."""

import gc
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from saddlepoint.errors import SaddleError
from saddlepoint.remote import Outage, Place, discard
from saddlepoint.scaling import group, mailbox
from saddlepoint.scaling.desk import BUSY, END, REPORT, Desk, Run, Task
from saddlepoint.scaling.jobs import End, LastReport, Report, Resources
from saddlepoint.scaling.places import starter, worker
from saddlepoint.scaling.settings import settled, stored
from saddlepoint.scaling.watch import died, verdict


class Tuning:
    """A run of Tune in a thread of its own, open until its desk is closed.

    `storage` is a folder for scratch files, shared by all nodes. `error` is what broke the run, if anything did.
    """

    def __init__(self, resources: Resources, workers: int, storage: Place) -> None:
        self.desk = Desk(workers, mailbox.make() if resources.workers > 1 else None)
        self.error: BaseException | None = None
        self._resources, self._scratch = resources, storage / "tune"
        discard(self._scratch)
        self._thread = threading.Thread(target=self._fit, name="saddlepoint-tune", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the run and its workers."""
        self.desk.close()
        self._thread.join()

    def _fit(self) -> None:
        try:
            with settled(_settings(self.desk.workers)):
                self._tuner().fit()
        except BaseException as error:
            self.error = error
        finally:
            if self.desk.letters is not None:
                group.clear(self.desk.trials)  # Tune ends the process of a job, not what that has started
                ray.kill(self.desk.letters)
            discard(self._scratch)
            self.desk.close()

    def _tuner(self) -> tune.Tuner:
        def name(trial: Any) -> str:
            return str(trial.config["task"])

        work = _on_worker(self._resources, self._scratch, self.desk.letters)
        return tune.Tuner(
            tune.with_resources(work, starter(self._resources, self.desk.workers)),
            tune_config=tune.TuneConfig(
                search_alg=_Asking(self.desk),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=name,
                trial_dirname_creator=name,
            ),
            run_config=tune.RunConfig(
                name=self._scratch.name,
                **stored(self._scratch.parent),
                stop=_Hearing(self.desk),
                callbacks=[_Ending(self.desk)],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )


def _settings(jobs: int) -> dict[str, str]:
    return {
        "TUNE_MAX_PENDING_TRIALS_PG": str(jobs),  # the first workers start together, not one after another
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # no snapshots
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


def _on_worker(resources: Resources, storage: Place, letters: Any) -> Callable[[dict[str, Any]], None]:
    def play(run: Run, payload: Any, report: Report) -> End:
        try:
            run(payload, report)
        except LastReport as last:
            report(last.values)
        return End("done")

    def play_together(run: Run, payload: Any, report: Report) -> End:
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
        task: Task = config["task"]
        if task.pause is not None:
            _rest(task.pause)
        started, waited = time.perf_counter(), 0.0

        def send(content: dict[str, Any]) -> None:
            nonlocal waited
            now = time.perf_counter()
            tune.report({**content, BUSY: now - started - waited})
            waited += time.perf_counter() - now

        def report(values: dict[str, Any]) -> None:
            send({REPORT: cloudpickle.dumps(values)})  # sealed: Tune would walk through it, and keep it

        try:
            run, payload = task.content()
            end = (play if resources.workers == 1 else play_together)(run, payload, report)
        except Outage as error:
            end = End("outage", str(error))
        except Exception:
            end = End("error", traceback.format_exc())
        send({END: end})

    return work


def _rest(pause: float) -> None:
    """Until Tune ends it: it keeps the process and what that has imported, and nothing of the last job."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    while True:
        tune.report({"saddle_rest": True})
        time.sleep(pause)


class _Asking(Searcher):  # type: ignore[misc]
    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A task as Tune's config; None: not now; FINISHED: nothing will come any more."""
        task = self._desk.next(trial_id)
        if task is not None:
            return {"task": task}
        return str(Searcher.FINISHED) if self._desk.closing else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Heard by `_Ending`, which is also told why."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """There is nothing to save."""


class _Hearing(tune.Stopper):  # type: ignore[misc]
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._desk.hear(trial_id, result)

    def stop_all(self) -> bool:
        return self._desk.closing


class _Ending(tune.Callback):  # type: ignore[misc]
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._desk.end(trial.trial_id, End("done"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        turn = self._desk.turn
        if turn is not None and turn.failure is None and (name := died(patience=1.0)) is not None:
            turn.failure = SaddleError(verdict(name))  # it was not the job that ended
        self._desk.end(trial.trial_id, _as_end(error, turn.log if turn is not None else Path()))


def _as_end(error: Exception, log: Path) -> End:
    """What Tune says of a trial that ended in an error of Ray's: those of the job itself come as a report."""
    text = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in text:
        return End("memory", f"its node ran out of memory, and Ray ended its worker; see {log}")
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.NodeDiedError):
        return End("lost", f"worker lost: its process was killed or crashed; see {log}")
    return End("error", text)

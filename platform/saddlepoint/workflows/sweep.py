"""The search: Optuna decides, Ray Tune executes, MLflow remembers. Killed at any instant and repeated, it goes on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import SaddleError, UserError
from ..metrics.catalogue import METRICS
from ..scaling import cluster
from ..scaling.executor import execute
from ..scaling.watch import watching
from ..search.ledger import Ledger
from ..search.pruners import make_pruner
from ..search.records import TrialRecord
from ..search.samplers import check_sampler
from ..spec import Pipeline, SearchSpec
from ..tracking.tracker import Tracker
from ..training.setup import Setup, setup
from ..training.state import Training
from .budget import Budget
from .disk import Disk
from .failures import Failures
from .folder import Folder
from .footprint import trial_bytes
from .generations import Generations, Replays
from .needs import driver_device, needs
from .provenance import run_tags
from .structures import structures
from .trial import from_its_node, work
from .trials import Trials

View = Callable[[Trials], AbstractContextManager[Any]]  # shows the trials while they run


def unseen(trials: Trials) -> AbstractContextManager[Any]:
    return nullcontext()


class Interrupted(SaddleError):
    """Ctrl-C: everything is on disk, and the same command goes on."""


@dataclass
class Sweep:
    """A sweep that is open: its folder is locked, its ledger and its tracker are at hand."""

    pipeline: Pipeline
    folder: Folder
    shared: Setup
    ledger: Ledger
    tracker: Tracker
    view: View
    tags: dict[str, str]  # of every run: which code, which data, which extractor, and what real data scores

    @property
    def search(self) -> SearchSpec:
        return searched(self.pipeline)

    def search_on(self) -> Trials:
        """Runs trials until the study holds as many as the pipeline wants, or the budget is spent."""
        search = self.search
        budget = Budget(search.budget, self.ledger, self.pipeline.resources.gpus_of_trial)
        return self.run(self.ledger, kind="trial", limit=search.trials, budget=budget, keep=search.keep)

    def run(
        self, ledger: Ledger, *, kind: str, limit: int, budget: Budget | None = None, keep: int | None = None
    ) -> Trials:
        """Lets Ray Tune work through a ledger. Raises Interrupted after Ctrl-C."""
        source: type[Trials] = Trials
        if self.search.population is not None:
            source = Generations if kind == "trial" else Replays
        trials = source(
            self.pipeline,
            ledger,
            self.tracker,
            self.folder,
            kind=kind,
            limit=limit,
            tags=self.tags,
            failures=Failures(self.search.failures),
            disk=self._disk(kind),
            budget=budget,
            keep=keep,
        )
        trials.clear_leftovers()
        try:
            with self.view(trials), watching(partial(self._rest, trials)):
                execution = execute(
                    trials,
                    partial(from_its_node, work),
                    resources=needs(self.pipeline.resources),
                    storage=self.folder.place / "ray",
                    log=self.folder.log,
                )
        except BaseException:
            trials.abandon()
            raise
        if budget is not None:
            budget.note()
        if execution.interrupted:
            trials.abandon()
            raise Interrupted(f"stopped; the same command goes on, or: saddle sweep --resume {self.folder.name}")
        return trials

    def _rest(self, trials: Trials) -> None:
        """Ray has died, and this process with it: the runs are at rest until the same command goes on."""
        trials.abandon()
        self.rest()

    def rest(self) -> None:
        self.tracker.finish("sweep", "KILLED")
        self.tracker.drain(5.0)

    def _disk(self, kind: str) -> Disk:
        cap = self.search.disk_gb
        need = self.search.seeds * trial_bytes(self.pipeline, self.shared) if cap else 0
        return Disk(self.folder.trials(kind), cap and 1e9 * cap, need)


def searched(pipeline: Pipeline) -> SearchSpec:
    """What is searched; raises UserError if that is nothing, or if sampler or pruner cannot serve it."""
    search, objective = pipeline.search, pipeline.objective.built()
    if search is None:
        raise UserError(f"search: is missing in the pipeline {pipeline.name!r}; a sweep needs search.space")
    check_sampler(search.sampler, objective)
    make_pruner(
        search.pruner, objective=objective, rounds=pipeline.training.rounds, first=search.min_rounds, eta=search.eta
    )
    return search


def open_ledger(pipeline: Pipeline, folder: Folder, study: str | None = None, **changes: Any) -> Ledger:
    search = searched(pipeline)
    settings: dict[str, Any] = {
        "sampler": search.sampler,
        "pruner": search.pruner,
        "min_rounds": search.min_rounds,
        "eta": search.eta,
    }
    return Ledger.open(
        folder.ledger_url(pipeline),
        study or folder.name,
        space=search.space,
        seed=pipeline.seed,
        objective=pipeline.objective.built(),
        rounds=pipeline.training.rounds,
        **(settings | changes),
    )


@contextmanager
def opened(
    pipeline: Pipeline, root: Path | None = None, view: View = unseen, *, extend: bool = False, top: int = 0
) -> Iterator[Sweep]:
    """Everything a sweep needs, checked and begun, in an order that leaves nothing behind if the input is wrong.

    extend: a sweep that was begun with another search space, or fewer rounds a trial, goes on with these; its best
    `top` configurations are then trained for as long as the new ones.
    """
    extend = searched(pipeline).population is None and extend  # whose decisions depend on its space and its rounds
    folder = Folder.of(pipeline, root)
    elsewhere = folder.apart()
    shared = setup(pipeline, device=driver_device(pipeline, elsewhere=cluster.elsewhere()))
    for values, trial in structures(pipeline):  # built here once, in memory, so that no worker finds out first
        try:
            Training(trial, pipeline.seed, folder.path, shared.on_cpu)
        except UserError as error:
            raise UserError(f"search.space: with {values}: {error}" if values else str(error)) from error
    with folder.locked():
        folder.begin(pipeline, extend=extend, elsewhere=elsewhere)
        ledger = open_ledger(pipeline, folder, extend=extend, longer=top)
        with Tracker(folder.tracking, tracking_uri=None, experiment=pipeline.experiment) as tracker:
            at = Sweep(pipeline, folder, shared, ledger, tracker, view, run_tags(pipeline, shared))
            begin_parent(at)
            try:
                with cluster.running(log=folder.log, at_rest=at.rest):
                    yield at
            except Interrupted:
                tracker.finish("sweep", "KILLED")
                raise
            except BaseException:
                tracker.finish("sweep", "FAILED")
                raise
            tracker.finish("sweep", "FINISHED")


def begin_parent(at: Sweep) -> None:
    """The parent run: the resolved pipeline, the data's and the score's identity, and what a perfect sampler scores."""
    tags = {"saddle.kind": "sweep", "saddle.pipeline": at.pipeline.fingerprint()}
    at.tracker.start_run("sweep", name=at.folder.name, params=at.pipeline.flat(), tags=tags | at.tags)
    at.tracker.artifact("sweep", "pipeline.yaml", at.pipeline.yaml())
    floor = {f"floor/{name}": value for name, value in at.shared.scorer.floor().items() if name in METRICS}
    at.tracker.log("sweep", 0, floor)  # without the share of each class, a chart each


def sweep(
    pipeline: Pipeline, *, root: Path | None = None, view: View = unseen, extend: bool = False, top: int = 0
) -> list[TrialRecord]:
    """The search alone, begun or continued. Returns the trial records of the ledger."""
    from .report import publish  # which reads sweeps, and so imports this file

    with opened(pipeline, root, view, extend=extend, top=top) as at:
        at.search_on()
        publish(at)
        return at.ledger.trials()

"""Repairs what a crash left: of the sweeps in this folder by their ledgers, of other runs by their last sign of life.

The ledger is the truth. Whatever the tracking store or the disk says otherwise is made to agree with it; what agrees
is left alone, so a second call finds nothing to do. A sweep on which another command works is not touched.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import SaddleError
from ..remote import Place, discard
from ..search.ledger import Ledger
from ..search.records import Outcome, TrialRecord
from ..spec import Pipeline
from ..tracking.reconcile import Orphan, Store, Stored, identity, lacking, retell
from ..tracking.tracker import Tracker
from ..training.loop import Report
from ..training.setup import setup
from .disk import checkpoints, halves, remove, sweep_up, trials_in
from .folder import Folder, home
from .generations import piece_tags, population_of, schedule_tags
from .provenance import run_tags
from .sweep import Sweep, begin_parent, open_ledger, searched, unseen
from .train import log_report
from .trials import STATUS

PATIENCE = 30.0  # seconds that a store which answered before may be in trouble
HOUR = 3.6e6  # milliseconds
KINDS = ("trial", "confirm")


@dataclass
class Reconciled:
    """One line each: what was repaired, and what was seen and left alone."""

    repaired: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def reconcile(name: str | None = None, *, root: Path | None = None, stale_after: float = 24.0) -> Reconciled:
    """Repairs one sweep, or all in this folder and the runs of the tracking store that belong to none of them.

    stale_after: hours without a sign of life, after which a run that is no sweep's here counts as dead.

    Raises:
        UserError: there is no such sweep.
        SaddleError: the tracking store does not answer; or the one sweep is being worked on.
    """
    root = root or home()
    store, done = Store(), Reconciled()
    if name is not None:
        done.repaired += _repair(Folder.existing(name, root), store)
        return done
    known = {identity(path) for path in root.glob("*/tracking")}
    orphans = store.orphans(known)
    for path in sorted(root.glob("*/pipeline.yaml")):
        folder = Folder(path.parent)
        try:
            done.repaired += _repair(folder, store)
        except SaddleError as error:  # one sweep's trouble is not the others'
            done.left.append(f"{folder.name}: {error}")
    for orphan in orphans:
        _bury(orphan, store, stale_after, done)
    return done


def _bury(orphan: Orphan, store: Store, stale_after: float, done: Reconciled) -> None:
    hours = (time.time_ns() / 1e6 - orphan.alive) / HOUR
    what = f"run {orphan.name!r} ({orphan.run_id}) of the experiment {orphan.experiment!r}"
    if hours < stale_after:
        done.left.append(f"{what}: RUNNING, of no sweep here, with a sign of life {hours:.1f} h ago")
        return
    store.end(orphan, f"it was RUNNING without a sign of life for {hours:.1f} hours, of no sweep in {Path.cwd()}")
    done.repaired.append(f"{what}: no sign of life for {hours:.1f} h, now KILLED")


def _repair(folder: Folder, store: Store) -> list[str]:
    """The repairs of one sweep, in the order in which they were made."""
    with folder.locked():
        lines = list(_sweep_out(folder))
        pipeline = folder.pipeline()
        if searched(pipeline).ledger or (folder.path / "ledger.db").exists():  # else it was killed before it began
            lines += _agree(folder, pipeline, store)
        return [f"{folder.name}: {line}" for line in lines]


def _sweep_out(folder: Folder) -> Iterator[str]:
    """What a crash left of files that were being written, folders that were being removed, and of Ray's scratch."""
    gone = sum(sweep_up(folder.trials(kind)) for kind in KINDS)
    if gone:
        yield f"{gone} half removed folders are gone"
    broken = [half for place in {folder.path, folder.place} for half in halves(place)]
    broken = [half for half in broken if not isinstance(half, Path) or folder.tracking not in half.parents]
    for half in broken:
        half.unlink(missing_ok=True)
    if broken:
        yield f"{len(broken)} half written files are gone"
    if (scratch := folder.place / "ray" / "tune").exists():
        discard(scratch)
        yield "Ray's scratch files are gone"


def _agree(folder: Folder, pipeline: Pipeline, store: Store) -> Iterator[str]:
    """Ledger, disk and tracking store, trial by trial."""
    ledgers = {"trial": open_ledger(pipeline, folder)}
    if folder.trials("confirm").exists():
        study = f"{folder.name}.confirm"
        ledgers["confirm"] = open_ledger(pipeline, folder, study, sampler="random", pruner="none")
    for kind, ledger in ledgers.items():
        for number in ledger.settle():
            yield f"{_key(kind, number)} had ended, which the ledger knew by halves; settled"
    trials = {
        _key(kind, trial.number): trial
        for kind, ledger in ledgers.items()
        for trial in ledger.trials()
        if trial.state not in ("waiting", Outcome.DUPLICATE)  # which never had a run
    }
    population = population_of(pipeline)
    held = population.held(ledgers["trial"].trials()) if population else set()
    there = {_key(kind, int(place.name)) for kind in ledgers for place in trials_in(folder.trials(kind))}
    for key, trial in trials.items():
        if key in there and trial.state != "running" and not (_kind(key) == "trial" and trial.number in held):
            yield from _clear(folder.trial(_kind(key), trial.number), key, complete=trial.state == Outcome.COMPLETE)
    if trials:
        yield from _tell(folder, pipeline, ledgers["trial"], trials, store)


def _key(kind: str, number: int) -> str:
    return f"{kind}-{number:04d}"


def _kind(key: str) -> str:
    return key.partition("-")[0]


def _clear(place: Place, key: str, *, complete: bool) -> Iterator[str]:
    """Of a trial that has ended: nothing that goes on, and of one that is not complete no generator."""
    if not complete:
        remove(place)
        yield f"{key} did not complete; its folder is gone"
    for checkpoint in checkpoints(place):
        checkpoint.unlink(missing_ok=True)
        yield f"{key} has ended; its checkpoint is gone"


def _tell(
    folder: Folder, pipeline: Pipeline, ledger: Ledger, trials: dict[str, TrialRecord], store: Store
) -> Iterator[str]:
    names = {name for metric in pipeline.objective.built().names for name in (metric, f"final/{metric}")}
    sweep = identity(folder.tracking)
    if sweep is not None and lacking(folder.tracking, store.runs(sweep, names)):
        retell(folder.tracking)
        yield "the tracking store had lost some of its history; it is told again"
    with Tracker(folder.tracking, tracking_uri=None, experiment=pipeline.experiment) as tracker:
        _arrive(tracker)
        if tracker.inherited:
            yield f"{tracker.inherited} events that had not arrived in the tracking store were sent"
        stored = store.runs(tracker.sweep, names)
        teller = Teller(folder, pipeline, ledger, tracker)
        for key, trial in trials.items():
            for line in teller.repair(key, trial, stored.get(key)):
                yield f"{key} {line}"
        parent = stored.get("sweep")
        if (parent is not None and parent.status == "RUNNING") or teller.began_parent:
            tracker.finish("sweep", "KILLED")
            yield "its run was RUNNING; now KILLED until the sweep goes on"
        _arrive(tracker)


def _arrive(tracker: Tracker) -> None:
    """Waits for all to arrive, as long as the store takes it."""
    patience = PATIENCE
    while not tracker.drain(5.0):
        patience = patience - 5.0 if tracker.trouble else PATIENCE
        if patience <= 0:
            raise SaddleError(f"tracking store {tracker.uri} fails: {tracker.trouble}")


class Teller:
    """Tells the tracking store what the ledger knows of trials, and the store does not."""

    def __init__(self, folder: Folder, pipeline: Pipeline, ledger: Ledger, tracker: Tracker) -> None:
        self.folder, self.pipeline, self.ledger, self.tracker = folder, pipeline, ledger, tracker
        self.began_parent = False

    @cached_property
    def tags(self) -> dict[str, str]:
        """Of every run; and the parent run is there."""
        shared = setup(self.pipeline)
        tags = run_tags(self.pipeline, shared)
        if not self.tracker.knows("sweep"):
            self.began_parent = True
            begin_parent(Sweep(self.pipeline, self.folder, shared, self.ledger, self.tracker, unseen, tags))
        return tags

    def repair(self, key: str, trial: TrialRecord, stored: Stored | None) -> Iterator[str]:
        if trial.state == "running":
            if stored is not None and stored.status == "RUNNING":
                self.tracker.finish(key, "KILLED")
                yield "is unfinished and was RUNNING; now KILLED until the sweep goes on"
            return
        if stored is None:
            stored = Stored("RUNNING", {})
            self._begin(key, trial)
            yield "had no run in the tracking store; it has one now, as far as the ledger knows"
        if points := self._points(key, trial, stored):
            yield f"had a history with holes; {points} points were filled in"
        status = STATUS[Outcome(trial.state)]
        if stored.status != status or stored.tags.get("saddle.outcome") != trial.state:
            self.tracker.tag(key, {"saddle.outcome": trial.state, "saddle.reason": trial.reason or ""})
            self.tracker.finish(key, status)
            yield f"has ended ({trial.state}) and was {stored.status}; now {status}"

    def _begin(self, key: str, trial: TrialRecord) -> None:
        own = self.pipeline.with_values(trial.values).model_copy(update={"seed": trial.seed})
        tags = {"saddle.kind": _kind(key), "saddle.trial": str(trial.number), **schedule_tags(trial), **self.tags}
        if _kind(key) == "trial" and (population := population_of(self.pipeline)) is not None:
            tags |= piece_tags(population.pieces(self.ledger.trials())[trial.number])
        self.tracker.start_run(key, name=key, parent="sweep", params=own.parameters(), tags=tags)

    def _points(self, key: str, trial: TrialRecord, stored: Stored) -> int:
        """Fills in what is missing of the objective's curves, and the final scores; how many points that are."""
        holes = [
            (step, metric, value)
            for metric, curve in trial.curves.items()
            for step, value in curve.items()
            if step not in stored.steps.get(metric, ())
        ]
        for step, metric, value in holes:
            self.tracker.fill(key, step, {metric: value})
        final = trial.attrs.get("final", {}) if trial.state == Outcome.COMPLETE else {}
        if not final or any(stored.steps.get(f"final/{metric}") for metric in trial.scores):
            return len(holes)
        end = max(trial.intermediate, default=self.pipeline.training.rounds)  # of a population's piece: its own end
        log_report(self.tracker, key, Report(end, final, [], best_round=trial.attrs["best_round"], final=True))
        return len(holes) + len(final)

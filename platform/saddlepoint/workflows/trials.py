"""The driver's side of the trials: the ledger says what comes next, the tracker hears what happened.

The order of every write is the order that survives a crash: first the tracker's spool, then the ledger, then the
worker's checkpoint (it is written only after its report was taken). Whatever is interrupted in between is heard again,
and both spool and ledger know what they have heard.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..metrics.catalogue import METRICS
from ..scaling.jobs import Job
from ..search.ledger import Ledger
from ..search.records import Outcome
from ..spec import Pipeline
from ..tracking.tracker import Status, Tracker
from ..training.loop import Report
from ..training.state import CHECKPOINT
from .folder import Folder
from .train import log_report
from .trial import Order

STATUS: dict[Outcome, Status] = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.PRUNED: "KILLED",
    Outcome.DIVERGED: "FAILED",
    Outcome.FAILED: "FAILED",
}


@dataclass
class Row:
    """One trial as a person sees it."""

    number: int
    values: dict[str, Any]
    state: str = "running"
    round: int = 0
    objective: float | None = None
    reason: str = ""
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Trials:
    """The source from which the executor takes its jobs: the trials of a search, or the retrainings of a confirmation.

    kind: "trial" or "confirm"; names folders and runs. limit: how many trials there shall be in all. tags: of
    every run.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ledger: Ledger,
        tracker: Tracker,
        folder: Folder,
        *,
        kind: str,
        limit: int,
        tags: Mapping[str, str],
    ) -> None:
        self.pipeline, self.ledger, self.tracker, self.folder = pipeline, ledger, tracker, folder
        self.kind, self.limit, self.tags = kind, limit, tags
        self.metric = METRICS[pipeline.objective.metric]
        self.rows: dict[int, Row] = {}
        self._ends: dict[int, tuple[Outcome, float | None, str | None]] = {}

    def key(self, number: int) -> str:
        return f"{self.kind}-{number:04d}"

    def next(self) -> Job | None:
        suggestion = self.ledger.next(self.limit)
        if suggestion is None:
            return None
        number = suggestion.number
        trial = self.pipeline.with_values(suggestion.values)
        self.tracker.start_run(
            self.key(number),
            name=self.key(number),
            parent="sweep",
            params=trial.model_copy(update={"seed": suggestion.seed}).parameters(),
            tags={"saddle.kind": self.kind, "saddle.trial": str(number), **self.tags},
        )
        self.rows[number] = Row(number, dict(suggestion.values))
        order = Order(trial.content(), suggestion.seed, str(self.folder.trial(self.kind, number)))
        return Job(number, order)

    def result(self, number: int, report: Mapping[str, Any]) -> bool:
        """Takes one report; True means that the trial shall stop."""
        row = self.rows[number]
        if "diverged" in report:
            self._ends[number] = (Outcome.DIVERGED, None, report["diverged"])
            return False
        told = Report(**report)
        log_report(self.tracker, self.key(number), told)
        value = told.metrics[self.metric.name]
        row.round, row.objective, row.seconds = told.round, value, told.seconds
        self.ledger.note(number, seconds=told.seconds)
        if told.final:
            self.ledger.note(number, final=told.metrics, best_round=told.best_round)
            self._ends[number] = (Outcome.COMPLETE, value, None)
            return False
        if not self.ledger.report(number, told.round, value):
            return False
        self._ends[number] = (Outcome.PRUNED, None, f"{self.metric.name} {value:.4g} at round {told.round}")
        return True

    def ended(self, number: int, error: str | None) -> None:
        outcome, value, reason = self._ends.pop(number, (Outcome.FAILED, None, error or "it ended without a result"))
        if error is not None and outcome is not Outcome.PRUNED:  # stopping a trial may look like an error
            outcome, value, reason = Outcome.FAILED, None, error.strip().splitlines()[-1]
            self.tracker.artifact(self.key(number), "traceback.txt", error)
        tags = {"saddle.outcome": outcome.value, "saddle.reason": reason or ""}
        self.tracker.tag(self.key(number), tags)
        self.tracker.finish(self.key(number), STATUS[outcome])
        self.ledger.tell(number, outcome, value, reason=reason)
        row = self.rows[number]
        row.state, row.reason = outcome.value, reason or ""
        if value is not None:
            row.objective = value
        self._clear(number, outcome)

    def _clear(self, number: int, outcome: Outcome) -> None:
        """Only live trials keep what is needed to go on; only complete ones keep their generator."""
        folder = self.folder.trial(self.kind, number)
        if outcome is Outcome.COMPLETE:
            (folder / CHECKPOINT).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)

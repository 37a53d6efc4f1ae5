"""The driver's side of the trials: the ledger says what comes next, the tracker hears what happened.

The order of every write is the order that survives a crash: first the tracker's spool, then the ledger, then the
worker's checkpoint (it is written only after its report was taken). Whatever is interrupted in between is heard again,
and both spool and ledger know what they have heard.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SaddleError
from ..scaling.jobs import End, Job
from ..search.ledger import Ledger
from ..search.records import Outcome, Suggestion
from ..spec import Pipeline
from ..tracking.tracker import Status, Tracker
from ..training.loop import Report
from .budget import Budget
from .disk import Disk
from .failures import Failures
from .folder import Folder
from .train import log_report
from .trial import NODE, Order

STATUS: dict[Outcome, Status] = {
    Outcome.COMPLETE: "FINISHED",
    Outcome.PRUNED: "KILLED",
    Outcome.DIVERGED: "FAILED",
    Outcome.OUT_OF_MEMORY: "FAILED",
    Outcome.FAILED: "FAILED",
}
LESS = 0.5  # of the workers are at work beside a trial that ran out of memory, when it is tried again


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
    inherited: float = 0.0  # seconds of the pieces of training that it goes on from
    notes: dict[str, Any] = field(default_factory=dict)  # what the ledger has of it from an earlier life


class Trials:
    """The source from which the executor takes its jobs: the trials of a search, or the retrainings of a confirmation.

    kind: "trial" or "confirm"; names folders and runs. limit: how many trials there shall be in all. tags: of
    every run. keep: how many of the complete ones keep their generators; None: all.
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
        failures: Failures,
        disk: Disk,
        budget: Budget | None = None,
        keep: int | None = None,
    ) -> None:
        self.pipeline, self.ledger, self.tracker, self.folder = pipeline, ledger, tracker, folder
        self.kind, self.limit, self.tags = kind, limit, tags
        self.failures, self.disk, self.budget, self.keep = failures, disk, budget, keep
        self.objective = pipeline.objective.built()
        self.seeds = 1 if pipeline.search is None or kind == "confirm" else pipeline.search.seeds
        self.rows: dict[int, Row] = {}
        self.over: str | None = None  # why no new trial begins, if it is not the limit
        self._kept = [
            (self.objective.key(trial.scores), trial.number) for trial in ledger.best(keep or 0)
        ]  # best first
        self._orders: dict[int, Order] = {}
        self._again: deque[tuple[int, float]] = deque()  # trials to give out once more, with their crowd
        self._ends: dict[int, tuple[Outcome, Mapping[str, float] | None, str | None]] = {}
        self._waiting = {trial.number for trial in ledger.trials() if trial.state == "running"}  # from an earlier life

    def clear_leftovers(self) -> None:
        """What a command that was killed did not come to remove: of trials that have ended, and of kept ones that are
        among the best no more."""
        held, there = self.held, self.disk.there()
        for trial in self.ledger.trials():
            ended = trial.state not in ("waiting", "running") and trial.number not in held
            if ended and trial.number in there:
                self.disk.end(trial.number, complete=trial.state == Outcome.COMPLETE)
        if self.keep is not None:
            self.disk.keep(self.kept, self.live | self._waiting | held)

    def key(self, number: int) -> str:
        return f"{self.kind}-{number:04d}"

    @property
    def live(self) -> set[int]:
        return {number for number, row in self.rows.items() if row.state == "running"}

    @property
    def kept(self) -> list[int]:
        """The trials whose generators are kept, best first."""
        return [number for _, number in self._kept]

    @property
    def held(self) -> set[int]:
        """Trials that have ended, and whose checkpoints are needed yet."""
        return set()

    def next(self) -> Job | None:
        if self._again:
            number, crowd = self._again.popleft()
            return Job(number, self._orders[number], crowd)
        held = self.held
        if not self.disk.room([number for number in self.kept if number not in held], self.live | held):
            return None
        if self.budget is not None:
            self.budget.note()
            self.over = self.budget.spent()
        suggestion = self._suggest()
        if suggestion is None:
            return None
        self._begin(suggestion)
        return Job(suggestion.number, self._orders[suggestion.number])

    def _suggest(self) -> Suggestion | None:
        return self.ledger.next(0 if self.over else self.limit)  # unfinished trials are still handed out

    def _placed(self, row: Row, order: Order) -> tuple[Order, dict[str, str]]:
        """The order, and the tags, of a trial that begins, as a kind of trials needs them."""
        return order, {}

    def _begin(self, suggestion: Suggestion) -> None:
        number = suggestion.number
        trial = self.pipeline.with_values(suggestion.values)
        row, folder = Row(number, dict(suggestion.values)), self.folder.trial(self.kind, number)
        order, tags = self._placed(row, Order(trial.content(), suggestion.seed, str(folder), self.seeds))
        self.tracker.start_run(
            self.key(number),
            name=self.key(number),
            parent="sweep",
            params=trial.model_copy(update={"seed": suggestion.seed}).parameters(),
            tags={"saddle.kind": self.kind, "saddle.trial": str(number), **tags, **self.tags},
        )
        if suggestion.resumed:
            before = self.ledger.trials()[number]
            row.round, row.notes = max(before.intermediate, default=row.round), dict(before.attrs)
            row.seconds = row.notes.get("seconds", 0.0)
        self.rows[number], self._orders[number] = row, order

    def result(self, number: int, report: Mapping[str, Any]) -> bool:
        """Takes one report; True means that the trial shall stop."""
        row = self.rows[number]
        for ended in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY):
            if ended.value in report:
                self._ends[number] = (ended, None, report[ended.value])
                return False
        self.failures.heard(number)
        told = Report(**{name: value for name, value in report.items() if name != NODE})
        self._heard(number, told.round, report[NODE])
        log_report(self.tracker, self.key(number), told)
        scores = {name: told.metrics[name] for name in self.objective.names}
        value = scores[self.objective.metric.name]
        seconds = told.seconds - row.inherited
        if self.budget is not None:
            self.budget.spend(max(told.round - row.round, 0), max(seconds - row.seconds, 0.0))
        row.round, row.objective, row.seconds = told.round, value, seconds
        self.ledger.note(number, seconds=seconds)
        if told.final:
            self.ledger.note(number, final=told.metrics, best_round=told.best_round)
            self._ends[number] = (Outcome.COMPLETE, scores, None)
            return False
        if not self.ledger.report(number, told.round, scores):
            return False
        seen = ", ".join(f"{name} {score:.4g}" for name, score in scores.items())
        self._ends[number] = (Outcome.PRUNED, None, f"{seen} at round {told.round}")
        return True

    def _heard(self, number: int, round: int, place: str) -> None:
        """Notes where the trial is played; and for each worker that it lost, the round of the first report after that:
        of one that went on, it is the one after its checkpoint; of one that had to begin again, the first of all."""
        notes = self.rows[number].notes
        nodes, went_on = notes.get("nodes", []), notes.get("went_on", [])
        if nodes[-1:] != [place]:
            self._note(number, nodes=[*nodes, place])
        if silent := notes.get("lost", 0) - len(went_on):
            self._note(number, went_on=went_on + [round] * silent)

    def ended(self, number: int, end: End) -> None:
        """Raises SaddleError if no trial can go on for now; then the ledger has them as they were."""
        if end.how == "outage":
            raise SaddleError(f"{end.text}; when it is back, the same command goes on with every trial where it was")
        outcome, scores, reason = self._ends.pop(number, (None, None, None))
        if outcome is Outcome.OUT_OF_MEMORY or end.how == "memory":
            reason = reason or end.text
            if self._first_time_out_of_memory(number, reason):
                return
            outcome = Outcome.OUT_OF_MEMORY
        elif end.how == "lost" and outcome is None:
            self._note(number, lost=1 + self.rows[number].notes.get("lost", 0))
            if self.failures.lose(number):
                self.rows[number].reason = "its worker was lost; it goes on from its checkpoint"
                self._again.append((number, 1.0))
                return
            reason = f"its worker died {self.failures.lost[number]} times in a row at round {self.rows[number].round}"
        elif end.how != "done" and outcome is not Outcome.PRUNED:  # stopping a trial may look like an error
            outcome, scores, reason = Outcome.FAILED, None, end.text.strip().splitlines()[-1]
            self.tracker.artifact(self.key(number), "traceback.txt", end.text)
        if outcome is None:
            outcome, reason = Outcome.FAILED, reason or "it ended without a result"
        self._settle(number, outcome, scores, reason or "")

    def _first_time_out_of_memory(self, number: int, reason: str) -> bool:
        if "memory" in self.rows[number].notes:
            return False
        self._note(number, memory=reason)
        self.rows[number].reason = f"{reason}; it is tried once more with less beside it"
        self._again.append((number, LESS))
        return True

    def _note(self, number: int, **notes: Any) -> None:
        self.rows[number].notes |= notes
        self.ledger.note(number, **notes)

    def _settle(self, number: int, outcome: Outcome, scores: Mapping[str, float] | None, reason: str) -> None:
        """The end in the tracker's spool first, then in the ledger, then on the disk."""
        tags = {"saddle.outcome": outcome.value, "saddle.reason": reason}
        notes = self.rows[number].notes
        if lost := notes.get("lost"):
            tags["saddle.lost"] = str(lost)
        for name in ("went_on", "nodes"):
            if name in notes:
                tags[f"saddle.{name}"] = ", ".join(map(str, notes[name]))
        self.tracker.tag(self.key(number), tags)
        self.tracker.finish(self.key(number), STATUS[outcome])
        self.ledger.tell(number, outcome, scores, reason=reason or None)
        row = self.rows[number]
        row.state, row.reason = outcome.value, reason
        self._waiting.discard(number)
        if scores is not None:
            row.objective = scores[self.objective.metric.name]
        if self.keep is not None and scores is not None:
            self._kept = sorted([*self._kept, (self.objective.key(scores), number)])[: self.keep]
        self._tidy(number, complete=scores is not None)
        if outcome is not Outcome.FAILED:
            self.failures.well()
        elif (stop := self.failures.failed(reason)) is not None:
            raise stop

    def _tidy(self, number: int, *, complete: bool) -> None:
        """Takes from the disk what a trial that has ended does not need any more."""
        self.disk.end(number, complete=complete)
        if self.keep is not None and complete:
            self.disk.keep(self.kept, self.live | self._waiting)

    def abandon(self) -> None:
        """The command stops before its trials have ended: their runs are at rest until it goes on."""
        for number in self.live:
            self.tracker.finish(self.key(number), "KILLED")

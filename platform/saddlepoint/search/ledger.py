"""The ledger: an Optuna study in a database, the only truth of a sweep.

Every suggestion, score, state and note of a trial is in the database before anyone acts on it. A sweep can be killed
at any instant: whoever opens the ledger again is first handed the unfinished trials, under the same numbers and with
the same values, then what is queued, then new suggestions. The ledger decides; it runs nothing.

One process drives a sweep (any number of its threads may use the ledger); others may read at the same time.
"""

import json
import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.metrics.objective import Objective, Scores
from saddlepoint.search.book import AGAIN, Book
from saddlepoint.search.extend import Terms, find
from saddlepoint.search.pruners import Pruner, make_pruner
from saddlepoint.search.reading import (
    BEGUN,
    COPIED,
    CURVE,
    KEY,
    QUEUED,
    SEED,
    TOLD,
    curve_of,
    draw,
    searched,
    seed_of,
)
from saddlepoint.search.records import Outcome, Suggestion, TrialRecord
from saddlepoint.search.remembered import Remembered
from saddlepoint.search.samplers import PerTrial, check_sampler
from saddlepoint.search.settle import constraints, settle
from saddlepoint.search.storage import open_storage, spoken, without_password
from saddlepoint.space import Space


class Ledger:
    """A sweep's trials: what to run next, what was seen, how each ended."""

    def __init__(
        self, study: optuna.Study, storage: Remembered, terms: Terms, sampler: PerTrial, pruner: Pruner, name: str
    ) -> None:
        """For `Ledger.open` alone."""
        self._study, self._storage, self._terms = study, storage, terms
        self._sampler, self._pruner, self._name = sampler, pruner, name
        self._lock = threading.RLock()
        self._records: dict[int, TrialRecord] = {}  # of trials that have ended, which never change
        self._live: dict[int, _Live] = {}
        self._kept: Book | None = None  # None: not read yet
        self._unfinished: deque[FrozenTrial] | None = None  # from an earlier life; None: not looked for yet

    @classmethod
    def open(
        cls,
        url: str | None,
        study: str,
        *,
        space: Space,
        rounds: int,
        objective: Objective,
        sampler: str = "tpe",
        pruner: str = "successive_halving",
        min_rounds: int | None = None,
        eta: int = 3,
        seed: int = 0,
        extend: bool = False,
        longer: int = 0,
    ) -> Self:
        """Creates the study, or continues it if the database at `url` (None: in memory) holds it.

        `rounds` is the length of a full trial; `min_rounds` and `eta` are the pruner's. `extend`: a study that was
        begun with another space, or with fewer rounds, is carried on with these (see `extend.py`); with more rounds,
        its complete trials count as pruned at their length, and the best `longer` of them are queued to be run anew.
        Raises UserError if the database cannot be opened, a name is unknown, sampler or pruner cannot serve the
        objective, or the study was begun on other terms.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        check_sampler(sampler, objective)
        pruning = make_pruner(pruner, objective=objective, rounds=rounds, first=min_rounds, eta=eta, seed=seed)
        terms = Terms(space, objective, rounds, seed)
        storage = open_storage(url)
        name = without_password(url) if url else "in memory"
        with spoken(name):
            found, generation = find(storage, study, terms, extend=extend, longer=longer)
        conditional = any(parameter.when for parameter in space.parameters.values())
        found.sampler = chosen = PerTrial(sampler, seed=seed, conditional=conditional, generation=generation)
        return cls(found, storage, terms, chosen, pruning, name)

    @property
    def study(self) -> optuna.Study:
        """Optuna's view of it, for this room alone."""
        return self._study

    @property
    def exhausted(self) -> bool:
        """No new values were found in many suggestions: the space holds only so many."""
        with self._storing():
            return self._book.in_a_row >= AGAIN

    def next(self, limit: int) -> Suggestion | None:
        """What to run next: unfinished trials, then queued ones, then new ones up to `limit`; None: nothing.

        Trial 0 is the space's defaults. `limit` counts all trials of the study but duplicates, and holds back new ones
        only. A new one with the values of a trial that ran, or runs, is told as its duplicate and not handed out.
        """
        with self._storing():
            self._storage.alone = True  # who asks this drives the sweep
            if self._unfinished is None:
                self._unfinished = self._recover()
            while (trial := self._take(self._unfinished, limit)) is not None:
                suggestion = self._hand_out(*trial)
                if suggestion is not None:
                    return suggestion
            return None

    def enqueue(
        self, values: Mapping[str, Any], *, seed: int | None = None, attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Queues a configuration (what a suggestion's `values` holds), to be trained from `seed`.

        The same values and seed are queued once, however often this is called, also by later processes.
        Raises UserError for a value outside the space, or names too many or too few.
        """
        space = self._terms.space
        configuration = space.walk(lambda name, _: _given(values, name))
        for name, value in values.items():
            if name not in configuration:
                raise unknown("values", name, configuration)
            if not space.parameters[name].contains(value):
                raise UserError(f"values.{name}: {value!r} lies outside the search space")
        key = json.dumps([configuration, seed], sort_keys=True)
        own = {KEY: key} if seed is None else {KEY: key, SEED: seed}
        with self._storing():
            if key not in (trial.user_attrs.get(KEY) for trial in self._trials()):
                self._study.enqueue_trial(searched(space, configuration), user_attrs={**(attrs or {}), **own})

    def report(self, number: int, step: int, scores: Scores) -> bool:
        """Notes the scores after `step` rounds, by metric; True: stop the trial (and `tell` how it ended).

        `scores` holds at least the objective's metrics. Where one of them is not finite nothing is stored, and it is
        no reason to prune: that a trial diverged is for the sentinel to say. A step that a resumed trial repeats keeps
        its first scores, and has the first answer.
        """
        objective = self._terms.objective
        found = {name: scores[name] for name in objective.names}
        with self._storing():
            live = self._unended(number)
            if live is None:
                return True
            if not all(map(math.isfinite, found.values())):
                return False
            if step not in live.curve:
                # Decided before it is written, and written in one piece: there is no instant to be killed between.
                full = step >= self._terms.rounds  # to stop it now would save nothing
                stop = not full and self._book.pruner.stops(number, step, found)
                note: dict[str, Any] = {"scores": found, "stop": stop}
                self._storage.set_trial_system_attr(live.id, f"{CURVE}{step}", note)
                live.curve[step] = note
                self._book.pruner.seen(number, step, found)
            if objective.second is None:  # Optuna's samplers and its dashboard know curves of one metric only
                self._storage.set_trial_intermediate_value(
                    live.id, step, live.curve[step]["scores"][objective.metric.name]
                )
            return step < self._terms.rounds and any(note["stop"] for note in live.curve.values())

    def tell(self, number: int, outcome: Outcome, scores: Scores | None = None, *, reason: str | None = None) -> None:
        """Ends a trial; one that has ended stays as it is.

        `scores` are those of a complete trial, by metric. If one of the objective's is not finite, the trial is
        recorded as diverged.
        """
        objective = self._terms.objective
        final = None
        if outcome is Outcome.COMPLETE:
            final = {name: (scores or {}).get(name, math.nan) for name in objective.names}
            worthless = [f"{name} is {score}" for name, score in final.items() if not math.isfinite(score)]
            if worthless:
                outcome, final, reason = Outcome.DIVERGED, None, reason or worthless[0]
        with self._storing():
            live = self._unended(number)
            if live is not None:
                self._end(live, number, outcome, final, reason)

    def note(self, number: int, **attrs: Any) -> None:
        """Adds to the `attrs` of a trial that has not ended, say the tracking run's `run_id`; JSON values."""
        with self._storing():
            live = self._unended(number)
            if live is None:
                raise SaddleError(f"ledger: {self._study.study_name}: trial {number} has ended, no more notes")
            for key, value in attrs.items():
                self._storage.set_trial_user_attr(live.id, key, value)

    def settle(self) -> list[int]:
        """Ends the trials that an earlier life told by halves; gives their numbers."""
        with self._storing():
            halves = [t.number for t in self._trials() if t.state == TrialState.RUNNING and TOLD in t.user_attrs]
            self._unfinished = self._recover() if self._unfinished is None else self._unfinished
            return halves

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        with self._storing():
            return [self._record(trial) for trial in self._trials()]

    def best(self, k: int = 1) -> list[TrialRecord]:
        """The best k complete trials, by the objective's key, the earlier of equals first; those that violate a bound
        only if there is none that does not."""
        complete = [record for record in self.trials() if record.state == Outcome.COMPLETE and record.inside]
        feasible = [record for record in complete if record.feasible]
        return sorted(feasible or complete, key=lambda record: self._terms.objective.key(record.scores))[:k]

    def front(self) -> list[TrialRecord]:
        """The complete trials within all bounds that no other of them dominates, best by the first metric first."""
        complete = [record for record in self.trials() if record.state == Outcome.COMPLETE and record.inside]
        return [complete[i] for i in self._terms.objective.front([record.scores for record in complete])]

    def spent_rounds(self) -> int:
        """What all trials have played, as far as was reported: a complete one all its rounds, another its last step."""
        return sum(
            self._terms.rounds if record.state == Outcome.COMPLETE else max(record.intermediate, default=0)
            for record in self.trials()
        )

    def get(self, key: str, default: Any = None) -> Any:
        """A note on the whole sweep."""
        with self._storing():
            return self._study.user_attrs.get(key, default)

    def set(self, key: str, value: Any) -> None:
        with self._storing():
            self._study.set_user_attr(key, value)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        with self._lock, spoken(self._name):
            yield

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        if trial.number in self._records:
            return self._records[trial.number]
        record = self._terms.record(trial)
        if trial.state.is_finished():
            self._records[trial.number] = record
        return record

    @property
    def _book(self) -> Book:
        if self._kept is None:
            trials = self._trials()
            queued = {trial.number for trial in trials if QUEUED in trial.system_attrs}
            since = self._study.user_attrs[BEGUN].get(COPIED, 0)
            self._kept = Book(self._pruner)
            self._kept.read((self._record(trial) for trial in trials), queued, since)
        return self._kept

    def _recover(self) -> deque[FrozenTrial]:
        """The unfinished trials; one that was told by halves is ended."""
        unfinished: deque[FrozenTrial] = deque()
        for trial in self._trials():
            if trial.state == TrialState.RUNNING:
                if TOLD in trial.user_attrs:
                    settle(
                        self._study, self._terms.objective, Trial(self._study, trial._trial_id), trial.user_attrs[TOLD]
                    )
                else:
                    unfinished.append(trial)
        return unfinished

    def _take(self, unfinished: deque[FrozenTrial], limit: int) -> tuple[Trial, bool] | None:
        """The next trial, and whether it was begun in an earlier life."""
        if unfinished:
            return Trial(self._study, unfinished.popleft()._trial_id), True
        trials = self._trials()
        if not any(trial.state == TrialState.WAITING for trial in trials):
            if len(trials) - self._book.duplicates >= limit or self.exhausted:
                return None
            if not trials:
                self._study.enqueue_trial(searched(self._terms.space, self._terms.space.defaults()))
        return self._study.ask(), False

    def _hand_out(self, trial: Trial, resumed: bool) -> Suggestion | None:
        """A suggestion, or None if it was the duplicate of another trial, as which it is told."""
        # A trial that was killed between two of its suggestions keeps the first and draws the second now.
        number, book = trial.number, self._book
        self._sampler.at_random = book.in_a_row >= AGAIN // 2
        values = self._terms.space.walk(lambda name, parameter: draw(trial, name, parameter))
        frozen = self._storage.get_trial(trial._trial_id)
        live = self._live[number] = _Live(trial._trial_id, curve_of(frozen))
        if QUEUED not in frozen.system_attrs:
            twin = book.twin(number, values)
            if twin is not None and not live.curve:
                self._end(live, number, Outcome.DUPLICATE, None, f"the same values as trial {twin}")
                book.repeated()
                return None
            book.in_a_row = 0
        book.ran(number, values)
        return Suggestion(number, values, seed_of(frozen, self._terms.seed), resumed)

    def _end(self, live: "_Live", number: int, outcome: Outcome, final: Scores | None, reason: str | None) -> None:
        objective, step = self._terms.objective, max(live.curve, default=0)
        known = final if final is not None or not live.curve else live.curve[step]["scores"]
        found = constraints(outcome, objective, known, step, self._book.pruner.place(number))
        told = {"outcome": outcome.value, "scores": final, "constraints": found, "reason": reason}
        # In one piece first: whatever of the rest is not written, `_recover` writes in the next life.
        self._storage.set_trial_user_attr(live.id, TOLD, told)
        settle(self._study, objective, Trial(self._study, live.id), told)
        self._live.pop(number, None)
        if outcome is Outcome.COMPLETE:
            self._book.pruner.completed(number)
        if outcome is Outcome.FAILED:
            self._book.failed(number)

    def _unended(self, number: int) -> "_Live | None":
        """The trial, or None if it has ended."""
        if number not in self._live:
            trials = self._trials()
            if not 0 <= number < len(trials):
                raise SaddleError(f"ledger: {self._study.study_name} has no trial {number}")
            if trials[number].state.is_finished():
                return None
            self._live[number] = _Live(trials[number]._trial_id, curve_of(trials[number]))
        return self._live[number]


@dataclass
class _Live:
    """A trial that has not ended."""

    id: int  # in the storage
    curve: dict[int, dict[str, Any]]  # by step: the scores, and whether it was to stop there


def _given(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise UserError(f"values: {name} is missing")
    return values[name]

"""The ledger: an Optuna study in a database, the only truth of a sweep.

Every suggestion, intermediate value, state and note of a trial is in the database before anyone acts on it.
A sweep can be killed at any instant: whoever opens the ledger again is first handed the unfinished trials,
under the same numbers and with the same values, then what is queued, then new suggestions. The ledger
decides; it runs nothing.

One process drives a sweep (any number of its threads may use the ledger); others may read at the same time.
"""

import json
import math
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.search.pruners import make_pruner
from saddlepoint.search.records import Outcome, Suggestion, TrialRecord
from saddlepoint.search.samplers import PerTrial, derive
from saddlepoint.search.storage import open_storage, spoken, without_password
from saddlepoint.space import Choice, Fixed, FloatRange, IntRange, Parameter, Space

# The ledger's own notes among a trial's or a study's attributes.
_OWN = "ledger."
_SEED, _SPACE, _KEY, _STOP, _TOLD = (_OWN + name for name in ("seed", "space", "key", "stop", "told"))
_ABSENT = object()


class Ledger:
    """A sweep's trials: what to run next, what was seen, how each ended."""

    def __init__(self, study: optuna.Study, space: Space, *, seed: int, rounds: int, name: str) -> None:
        """For `Ledger.open` alone."""
        self._study, self._space, self._seed, self._rounds, self._name = study, space, seed, rounds, name
        self._lock = threading.RLock()
        self._live: dict[int, Trial] = {}
        self._unfinished: deque[FrozenTrial] | None = None  # from an earlier life; None: not looked for yet

    @classmethod
    def open(
        cls,
        url: str | None,
        study: str,
        *,
        space: Space,
        rounds: int,
        sampler: str = "tpe",
        pruner: str = "successive_halving",
        min_rounds: int | None = None,
        eta: int = 3,
        seed: int = 0,
        minimize: bool = True,
    ) -> Self:
        """Creates the study, or continues it if the database at `url` (None: in memory) holds it.

        `rounds` is the length of a full trial; `min_rounds` and `eta` are the pruner's. Raises UserError if
        the database cannot be opened, a name is unknown, or the study was begun with another space, seed or
        direction.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        conditional = any(parameter.when for parameter in space.parameters.values())
        chosen = PerTrial(sampler, seed=seed, conditional=conditional)
        pruning = make_pruner(pruner, rounds=rounds, first=min_rounds, eta=eta)
        direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
        storage = open_storage(url)
        name = without_password(url) if url else "in memory"
        with spoken(name):
            opened = optuna.create_study(
                storage=storage,
                study_name=study,
                direction=direction,
                sampler=chosen,
                pruner=pruning,
                load_if_exists=True,
            )
            begun = opened.user_attrs
            for key, now in ((_SPACE, space.model_dump(mode="json")), (_SEED, seed)):
                if key not in begun:
                    opened.set_user_attr(key, now)
                elif begun[key] != now:
                    raise _changed(study, key.removeprefix(_OWN), begun[key], now)
        if opened.direction != direction:
            raise _changed(study, "direction", opened.direction.name.lower(), direction.name.lower())
        return cls(opened, space, seed=seed, rounds=rounds, name=name)

    def next(self, limit: int) -> Suggestion | None:
        """What to run next: unfinished trials, then queued ones, then new ones up to `limit`; None: nothing.

        Trial 0 is the space's defaults. `limit` counts all trials of the study, but holds back new ones only.
        """
        with self._storing():
            if self._unfinished is None:
                self._unfinished = self._recover()
            if self._unfinished:
                trial = Trial(self._study, self._unfinished.popleft()._trial_id)
                return self._hand_out(trial, resumed=True)
            trials = self._study.get_trials(deepcopy=False)
            if not any(trial.state == TrialState.WAITING for trial in trials):
                if len(trials) >= limit:
                    return None
                if not trials:
                    self._study.enqueue_trial(self._searched(self._space.defaults()))
            return self._hand_out(self._study.ask(), resumed=False)

    def enqueue(
        self, values: Mapping[str, Any], *, seed: int | None = None, attrs: Mapping[str, Any] | None = None
    ) -> None:
        """Queues a configuration (what a suggestion's `values` holds), to be trained from `seed`.

        The same values and seed are queued once, however often this is called, also by later processes.
        Raises UserError for a value outside the space, or names too many or too few.
        """
        configuration = self._space.walk(lambda name, _: _given(values, name))
        for name, value in values.items():
            if name not in configuration:
                raise unknown("values", name, configuration)
            if not self._space.parameters[name].contains(value):
                raise UserError(f"values.{name}: {value!r} lies outside the search space")
        key = json.dumps([configuration, seed], sort_keys=True)
        own = {_KEY: key} if seed is None else {_KEY: key, _SEED: seed}
        with self._storing():
            queued = (trial.user_attrs.get(_KEY) for trial in self._study.get_trials(deepcopy=False))
            if key not in queued:
                self._study.enqueue_trial(
                    self._searched(configuration), user_attrs={**(attrs or {}), **own}, skip_if_exists=False
                )

    def report(self, number: int, step: int, value: float) -> bool:
        """Notes the objective after `step` rounds; True: stop the trial (and `tell` how it ended).

        A value that is not finite is never stored, and no reason to prune: that a trial diverged is for the
        sentinel to say. A step that a resumed trial repeats keeps its first value; the answer comes anew.
        """
        with self._storing():
            trial = self._unended(number)
            if trial is None:
                return True
            if not math.isfinite(value):
                return False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "this step is already reported"
                trial.report(value, step)
            if step >= self._rounds:  # at its end: to prune it now would save nothing
                return False
            if _STOP not in trial.user_attrs:
                if not trial.should_prune():
                    return False
                # Asked twice at one rung, the pruner lets pass: a trial killed right here would go on.
                trial.set_user_attr(_STOP, step)
            return True

    def tell(self, number: int, outcome: Outcome, value: float | None = None, *, reason: str | None = None) -> None:
        """Ends a trial; one that has ended stays as it is.

        `value` is the objective of a complete trial. Without a finite one the trial is recorded as diverged.
        """
        if outcome is Outcome.COMPLETE and (value is None or not math.isfinite(value)):
            outcome, reason = Outcome.DIVERGED, reason or f"the objective is {value}"
        if outcome is not Outcome.COMPLETE:
            value = None
        with self._storing():
            trial = self._unended(number)
            if trial is not None:
                # In one piece first: whatever of the rest is not written, `_recover` writes in the next life.
                told = {"outcome": outcome.value, "value": value, "reason": reason}
                trial.set_user_attr(_TOLD, told)
                self._settle(trial, told)
            self._live.pop(number, None)

    def note(self, number: int, **attrs: Any) -> None:
        """Adds to the `attrs` of a trial that has not ended, say the tracking run's `run_id`; JSON values."""
        with self._storing():
            trial = self._unended(number)
            if trial is None:
                raise SaddleError(f"ledger: {self._study.study_name}: trial {number} has ended, no more notes")
            for key, value in attrs.items():
                trial.set_user_attr(key, value)

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        with self._storing():
            return [self._record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def best(self) -> TrialRecord | None:
        """The complete trial with the best objective; the earliest of equals."""
        sign = 1 if self._study.direction == StudyDirection.MINIMIZE else -1
        complete = [trial for trial in self.trials() if trial.value is not None]
        return min(complete, key=lambda trial: sign * (trial.value or 0.0), default=None)

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

    def _recover(self) -> deque[FrozenTrial]:
        unfinished: deque[FrozenTrial] = deque()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _TOLD in trial.user_attrs:
                self._settle(Trial(self._study, trial._trial_id), trial.user_attrs[_TOLD])
            else:
                unfinished.append(trial)
        return unfinished

    def _settle(self, trial: Trial, told: Mapping[str, Any]) -> None:
        match told["outcome"]:
            case Outcome.COMPLETE:
                self._study.tell(trial, told["value"])
            case Outcome.FAILED:
                self._study.tell(trial, state=TrialState.FAIL)
            case Outcome.PRUNED:
                self._study.tell(trial, state=TrialState.PRUNED)
            case Outcome.DIVERGED:
                # FAIL would hide it from TPE; pruned with a violated constraint, it counts as bad.
                if not trial.constraints:
                    trial.set_constraint("diverged", 1.0)
                self._study.tell(trial, state=TrialState.PRUNED)

    def _hand_out(self, trial: Trial, *, resumed: bool) -> Suggestion:
        # A trial that was killed between two of its suggestions keeps the first and draws the second now.
        values = self._space.walk(lambda name, parameter: _draw(trial, name, parameter))
        self._live[trial.number] = trial
        return Suggestion(trial.number, values, self._seed_of(trial), resumed)

    def _unended(self, number: int) -> Trial | None:
        """The trial, or None if it has ended."""
        if number in self._live:
            return self._live[number]
        frozen = self._frozen(number)
        return None if frozen.state.is_finished() else Trial(self._study, frozen._trial_id)

    def _frozen(self, number: int) -> FrozenTrial:
        trials = self._study.get_trials(deepcopy=False)
        if not 0 <= number < len(trials):
            raise SaddleError(f"ledger: {self._study.study_name} has no trial {number}")
        return trials[number]

    def _seed_of(self, trial: Trial | FrozenTrial) -> int:
        return int(trial.user_attrs.get(_SEED, derive(self._seed, trial.number, "training")))

    def _searched(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value for name, value in configuration.items() if not isinstance(self._space.parameters[name], Fixed)
        }

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        told = trial.user_attrs.get(_TOLD, {}) if trial.state.is_finished() else {}
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        values = self._space.walk(lambda name, _: params.get(name, _ABSENT))
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        return TrialRecord(
            number=trial.number,
            values={name: value for name, value in values.items() if value is not _ABSENT},
            seed=self._seed_of(trial),
            state=told.get("outcome", state),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            scores={},
            feasible=trial.state == TrialState.COMPLETE,
            curves={},
            intermediate=dict(trial.intermediate_values),
            reason=told.get("reason"),
            run_id=trial.user_attrs.get("run_id"),
            attrs={key: value for key, value in trial.user_attrs.items() if not key.startswith(_OWN)},
            started=trial.datetime_start.astimezone() if trial.datetime_start else None,
            ended=trial.datetime_complete.astimezone() if trial.datetime_complete else None,
        )


def _draw(trial: Trial, name: str, parameter: Parameter) -> Any:
    match parameter:
        case FloatRange():
            return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.choices)
        case Fixed():
            return parameter.value


def _given(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise UserError(f"values: {name} is missing")
    return values[name]


def _changed(study: str, key: str, begun: Any, now: Any) -> UserError:
    """The error for a sweep that would go on otherwise than it was begun, naming the first difference."""
    while isinstance(begun, dict) and isinstance(now, dict):
        part = next(part for part in begun | now if begun.get(part) != now.get(part))
        key, begun, now = f"{key}.{part}", begun.get(part), now.get(part)
    return UserError(f"{key}: {now!r}, but {study} was begun with {begun!r}; restore it, or begin another sweep")

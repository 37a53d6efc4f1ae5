"""Beginning a study, going on with it, and extending it to another space or to more rounds.

Optuna refuses other choices within a study, and its samplers pass over a parameter whose range has changed. So an
extended sweep is a new generation of its study, NAME#2 beside NAME in the same database, into which every trial is
copied under its number. A trial whose values lie in the new space stands there as if it had been drawn from it; one
that lies outside stays on record, but no sampler sees it. A parameter that was added has its default in older trials,
which is what they were trained with; by the same reason a trial lies outside where a parameter that was removed had
another value than its default.

The terms of a study are the last thing that is written to it. A generation without them is a copy that was
interrupted: it is passed over, and removed before the next one is begun.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from saddlepoint.errors import UserError
from saddlepoint.metrics.objective import Objective
from saddlepoint.search.reading import (
    BEGUN,
    COPIED,
    CURVE,
    KEY,
    OUTSIDE,
    QUEUED,
    TOLD,
    curve_of,
    distribution,
    record,
    searched,
    values_of,
)
from saddlepoint.search.records import Outcome, TrialRecord
from saddlepoint.search.settle import STATES, constraints
from saddlepoint.space import Parameter, Space

_ABSENT = object()
FREE = ("space", "rounds")  # what may change when a sweep is extended


@dataclass(frozen=True)
class Terms:
    """What a study is begun with."""

    space: Space
    objective: Objective
    rounds: int
    seed: int

    @classmethod
    def read(cls, begun: Mapping[str, Any], objective: Objective) -> "Terms":
        return cls(Space.model_validate(begun["space"]), objective, begun["rounds"], begun["seed"])

    def written(self) -> dict[str, Any]:
        return {
            "space": self.space.model_dump(mode="json"),
            "seed": self.seed,
            "objective": [metric.name for metric in self.objective.metrics],
            "constraints": {
                bound.metric: [at if abs(at) < math.inf else None for at in (bound.at_least, bound.at_most)]
                for bound in self.objective.bounds
            },
            "rounds": self.rounds,
        }

    def record(self, trial: FrozenTrial) -> TrialRecord:
        return record(trial, self.space, self.objective, self.seed)


def find(storage: BaseStorage, name: str, terms: Terms, *, extend: bool, longer: int) -> tuple[optuna.Study, int]:
    """The study `name` in its newest generation, and which one that is; begun or extended if need be."""
    names = set(optuna.get_all_study_names(storage))
    newest = 1
    while _called(name, newest + 1) in names:
        newest += 1
    ready = newest
    study = _load(storage, name, newest) if name in names else _create(storage, name, 1, terms)
    begun = study.user_attrs.get(BEGUN)
    if begun is None and newest > 1:
        ready = newest - 1
        study = _load(storage, name, ready)
        begun = study.user_attrs.get(BEGUN)
    if begun is None:
        study.set_user_attr(BEGUN, terms.written())
        return study, 1
    now = terms.written()
    changed = [key for key in now if begun[key] != now[key]]
    for key in changed:
        if not (extend and key in FREE):
            raise _changed(name, key, begun[key], now[key])
    if not changed:
        return study, ready
    if terms.rounds < begun["rounds"]:
        raise UserError(
            f"training.rounds: {terms.rounds}, but {name} was begun with {begun['rounds']}; it can be extended to more "
            "rounds, not to fewer"
        )
    if newest > ready:
        optuna.delete_study(study_name=_called(name, newest), storage=storage)
    extended = _create(storage, name, ready + 1, terms)
    _copy(study, extended, Terms.read(begun, terms.objective), terms, longer)
    return extended, ready + 1


def _called(name: str, generation: int) -> str:
    return name if generation == 1 else f"{name}#{generation}"


def _load(storage: BaseStorage, name: str, generation: int) -> optuna.Study:
    return optuna.load_study(
        study_name=_called(name, generation), storage=storage, sampler=RandomSampler(0), pruner=NopPruner()
    )


def _create(storage: BaseStorage, name: str, generation: int, terms: Terms) -> optuna.Study:
    directions = [
        StudyDirection.MINIMIZE if metric.better == "lower" else StudyDirection.MAXIMIZE
        for metric in terms.objective.metrics
    ]
    study = optuna.create_study(
        study_name=_called(name, generation),
        storage=storage,
        directions=directions,
        sampler=RandomSampler(0),
        pruner=NopPruner(),
    )
    return study


def _copy(old: optuna.Study, new: optuna.Study, before: Terms, now: Terms, longer: int) -> None:
    trials = old.get_trials(deepcopy=False)
    for trial in trials:
        new.add_trial(_copied(trial, before, now))
    if now.rounds > before.rounds:
        for number, values in _best(trials, before, now, longer) + _cut_short(trials, before, now):
            new.enqueue_trial(searched(now.space, values), user_attrs={"longer": number})
    for key, value in old.user_attrs.items():
        if key != BEGUN:
            new.set_user_attr(key, value)
    new.set_user_attr(BEGUN, now.written() | {COPIED: len(trials)})


def _best(trials: list[FrozenTrial], before: Terms, now: Terms, count: int) -> list[tuple[int, dict[str, Any]]]:
    """Number and new values of the best complete trials that lie in the new space."""
    complete = [record for record in map(before.record, trials) if record.state == Outcome.COMPLETE]
    complete.sort(key=lambda record: before.objective.key(record.scores))
    moved = ((record.number, _moved(record.values, before.space, now.space)) for record in complete)
    return [(number, values) for number, values in moved if values is not None][:count]


def _cut_short(trials: list[FrozenTrial], before: Terms, now: Terms) -> list[tuple[int, dict[str, Any]]]:
    """The same of those in mid-run: what they have played was on the way to fewer rounds, so they begin anew."""
    running = (trial for trial in trials if _is_cut_short(trial, before, now))
    moved = ((trial.number, _moved(values_of(trial, before.space), before.space, now.space)) for trial in running)
    return [(number, values) for number, values in moved if values is not None]


def _is_cut_short(trial: FrozenTrial, before: Terms, now: Terms) -> bool:
    begun = trial.state == TrialState.RUNNING and TOLD not in trial.user_attrs
    return now.rounds > before.rounds and begun and _drawn(values_of(trial, before.space), before.space)


def _drawn(values: Mapping[str, Any], space: Space) -> bool:
    """Whether it is whole: one that was killed between two of its suggestions draws the others when it goes on."""
    return _ABSENT not in space.walk(lambda name, _: values.get(name, _ABSENT)).values()


def _copied(trial: FrozenTrial, before: Terms, now: Terms) -> FrozenTrial:
    """The trial as it stands in the new generation; its place among the samplers' knowledge follows from what was told
    of it, so that one which lay outside before may lie inside again."""
    values, curve = values_of(trial, before.space), curve_of(trial)
    moved = _moved(values, before.space, now.space)
    told = trial.user_attrs.get(TOLD)
    if told is not None and told["outcome"] == Outcome.COMPLETE and now.rounds > before.rounds:
        curve.setdefault(before.rounds, {"scores": told["scores"], "stop": False})
        told = _shortened(told, before, now)
    if _is_cut_short(trial, before, now):
        last = curve[max(curve)]["scores"] if curve else None
        told = {
            "outcome": Outcome.PRUNED.value,
            "scores": None,
            "constraints": constraints(Outcome.PRUNED, now.objective, last, max(curve, default=0)),
            "reason": f"begun for {before.rounds} rounds, where {now.rounds} are wanted now",
        }
    if told is None and moved is None and not trial.state.is_finished():
        told = {
            "outcome": Outcome.PRUNED.value,
            "scores": None,
            "constraints": {},
            "reason": "outside the changed space",
        }

    user = {key: value for key, value in trial.user_attrs.items() if key not in (KEY, TOLD)}
    system: dict[str, Any] = {f"{CURVE}{step}": note for step, note in curve.items()}
    if QUEUED in trial.system_attrs:
        system[QUEUED] = searched(now.space, moved) if moved is not None else {}
    if KEY in trial.user_attrs and moved is not None:
        user[KEY] = json.dumps([moved, json.loads(trial.user_attrs[KEY])[1]], sort_keys=True)
    if told is not None:
        user[TOLD] = told
    if moved is None:
        system[OUTSIDE] = values

    metric = now.objective.metric.name
    seen = {step: note["scores"][metric] for step, note in curve.items()} if now.objective.second is None else {}
    state = STATES[Outcome(told["outcome"])] if told is not None else trial.state
    state = TrialState.FAIL if moved is None else state
    scores = None
    if told is not None and state == TrialState.COMPLETE:
        scores = [told["scores"][metric.name] for metric in now.objective.metrics]
    elif state == TrialState.PRUNED and seen:
        scores = [seen[max(seen)]]  # as Optuna tells it
    params = {} if moved is None or state == TrialState.WAITING else searched(now.space, moved)
    copy = create_trial(
        state=state,
        values=scores,
        params=params,
        distributions={name: distribution(now.space, name) for name in params},
        user_attrs=user,
        system_attrs=system,
        intermediate_values=seen,
        constraints=told["constraints"] if told is not None else None,
    )
    if state != TrialState.WAITING:
        copy.datetime_start = trial.datetime_start or copy.datetime_start
    if state.is_finished():
        copy.datetime_complete = trial.datetime_complete or datetime.now()
    return copy


def _shortened(told: Mapping[str, Any], before: Terms, now: Terms) -> dict[str, Any]:
    reason = f"complete after {before.rounds} rounds, where {now.rounds} are wanted now"
    found = constraints(Outcome.PRUNED, now.objective, told["scores"], before.rounds)
    return {"outcome": Outcome.PRUNED.value, "scores": None, "constraints": found, "reason": reason}


def _moved(values: Mapping[str, Any], before: Space, now: Space) -> dict[str, Any] | None:
    """The configuration in the new space, or None if it lies outside."""
    drawn = _drawn(values, before)

    def place(name: str, parameter: Parameter) -> Any:
        return values.get(name, parameter.default if drawn or name not in before.parameters else _ABSENT)

    moved = {name: value for name, value in now.walk(place).items() if value is not _ABSENT}
    kept = all(now.parameters[name].contains(values.get(name, value)) for name, value in moved.items())
    dropped = (name for name in values if name not in moved)
    implied = all(name in before.parameters and values[name] == before.parameters[name].default for name in dropped)
    return moved if kept and implied else None


def _changed(study: str, key: str, begun: Any, now: Any) -> UserError:
    """The error for a sweep that would go on otherwise than it was begun, naming the first difference."""
    while isinstance(begun, dict) and isinstance(now, dict):
        part = next(part for part in begun | now if begun.get(part) != now.get(part))
        key, begun, now = f"{key}.{part}", begun.get(part), now.get(part)
    return UserError(f"{key}: {now!r}, but {study} was begun with {begun!r}; restore it, or begin another sweep")

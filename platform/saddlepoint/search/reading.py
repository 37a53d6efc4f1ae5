"""What stands in a trial of the study, as a record.

What a person may want to see in optuna-dashboard is among a trial's user attributes, the ledger's own notes are among
its system attributes.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from saddlepoint.metrics.objective import Objective
from saddlepoint.randomness import derive
from saddlepoint.search.records import Outcome, TrialRecord
from saddlepoint.space import Choice, Fixed, FloatRange, IntRange, Parameter, Space

OWN = "ledger."
BEGUN = OWN + "begun"  # of the study: on what terms; written last, so that a study without is not ready
COPIED = "copied"  # within: how many trials it took over from the generation before
SEED = OWN + "seed"  # of a queued trial
KEY = OWN + "key"  # of a queued trial: what it is known by, so that it is queued once
TOLD = OWN + "told"  # how a trial ended, in one piece
CURVE = OWN + "curve."  # + step: the scores there, and whether the trial was to stop
OUTSIDE = OWN + "outside"  # the values of a trial that lies outside the space since that was changed
QUEUED = "fixed_params"  # Optuna's own: the values of a trial that was queued

_ABSENT = object()


def distribution(space: Space, name: str) -> BaseDistribution:
    match parameter := space.parameters[name]:
        case FloatRange():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return CategoricalDistribution(parameter.choices)
        case Fixed():
            raise TypeError(f"{name} is fixed, nothing to draw from")


def searched(space: Space, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna is to know of it: all but what is fixed."""
    return {name: value for name, value in configuration.items() if not isinstance(space.parameters[name], Fixed)}


def draw(trial: Trial, name: str, parameter: Parameter) -> Any:
    match parameter:
        case FloatRange():
            return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
        case IntRange():
            return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
        case Choice():
            return trial.suggest_categorical(name, parameter.choices)
        case Fixed():
            return parameter.value


def seed_of(trial: Trial | FrozenTrial, seed: int) -> int:
    """The seed of its training, in a sweep of this seed."""
    return int(trial.user_attrs.get(SEED, derive(seed, trial.number, "training") % 2**32))


def values_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """Its configuration, or as much of it as has been drawn."""
    if OUTSIDE in trial.system_attrs:
        return dict(trial.system_attrs[OUTSIDE])
    known = trial.params or trial.system_attrs.get(QUEUED, {})
    values = space.walk(lambda name, _: known.get(name, _ABSENT))
    return {name: value for name, value in values.items() if value is not _ABSENT}


def curve_of(trial: FrozenTrial) -> dict[int, dict[str, Any]]:
    """step: {"scores": by metric, "stop": whether it was to stop there}, in order."""
    notes = ((key.removeprefix(CURVE), note) for key, note in trial.system_attrs.items() if key.startswith(CURVE))
    return dict(sorted((int(step), note) for step, note in notes))


def record(trial: FrozenTrial, space: Space, objective: Objective, seed: int) -> TrialRecord:
    told = trial.user_attrs.get(TOLD, {}) if trial.state.is_finished() else {}
    state = told.get("outcome", {TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower()))
    scores = told["scores"] if state == Outcome.COMPLETE else {}
    curve = curve_of(trial)
    curves = {name: {step: note["scores"][name] for step, note in curve.items()} for name in objective.names}
    return TrialRecord(
        number=trial.number,
        values=values_of(trial, space),
        seed=seed_of(trial, seed),
        state=state,
        value=scores.get(objective.metric.name),
        scores=dict(scores),
        feasible=state == Outcome.COMPLETE and objective.feasible(scores),
        intermediate=curves[objective.metric.name],
        curves=curves,
        reason=told.get("reason"),
        run_id=trial.user_attrs.get("run_id"),
        attrs={key: value for key, value in trial.user_attrs.items() if not key.startswith(OWN)},
        started=trial.datetime_start.astimezone() if trial.datetime_start else None,
        ended=trial.datetime_complete.astimezone() if trial.datetime_complete else None,
        inside=OUTSIDE not in trial.system_attrs,
    )

"""How a trial's end is told to Optuna, so that its samplers learn from it what there is to learn.

complete                   COMPLETE with its values; a bound that it violates is a violated constraint
pruned                     PRUNED; the same for the bounds at its last score
diverged, out of memory    PRUNED with a constraint violated beyond all bounds: TPE ranks it last, and moves away
failed, duplicate          FAIL, which no sampler sees
"""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from saddlepoint.metrics.objective import Bound, Objective, Scores
from saddlepoint.search.records import Outcome

STATES = {
    Outcome.COMPLETE: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.PRUNED,
    Outcome.OUT_OF_MEMORY: TrialState.PRUNED,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.DUPLICATE: TrialState.FAIL,
}
BEYOND = 1e6  # the violation of what has no score


def constraints(
    outcome: Outcome, objective: Objective, scores: Scores | None, step: int = 0, place: float = 0.0
) -> dict[str, float]:
    """What Optuna is to know beside the values: positive is infeasible, and the more the worse.

    scores: of a complete trial; of a pruned one the last, after `step` rounds, where its `place` in [0, 1) was among
    the others. Every complete trial has the same constraints, as Optuna's GP demands. With one metric, TPE ranks
    pruned trials by their rounds, then by their last value; with two it would take them by number, as Optuna keeps no
    curves then, so a violation of at most 1/1000 puts them in the same order, behind the complete ones.
    """
    if outcome in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY):
        return {outcome.value: BEYOND}
    if outcome not in (Outcome.COMPLETE, Outcome.PRUNED):
        return {}
    found = {bound.metric: margin(bound, scores[bound.metric]) for bound in objective.bounds} if scores else {}
    if outcome is Outcome.PRUNED and objective.second is not None:
        found["stopped early"] = 1e-3 / (step + 1 - place)
    return found


def margin(bound: Bound, value: float) -> float:
    """How far beyond the bound, negative inside it (the GP models this), in units of the bound."""
    sides = [(bound.at_least, bound.at_least - value), (bound.at_most, value - bound.at_most)]
    return min(max(beyond / (abs(at) or 1.0) for at, beyond in sides if abs(at) < float("inf")), BEYOND / 2)


def settle(study: optuna.Study, objective: Objective, trial: Trial, told: Mapping[str, Any]) -> None:
    """Ends a running trial as told; the same again if it was interrupted on its way."""
    for name, value in told["constraints"].items():
        if name not in trial.constraints:  # set before an interruption
            trial.set_constraint(name, value)
    state = STATES[Outcome(told["outcome"])]
    values = [told["scores"][metric.name] for metric in objective.metrics] if state == TrialState.COMPLETE else None
    study.tell(trial, values, state)

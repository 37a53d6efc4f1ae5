"""Which parameters matter: Optuna's evaluators over the places of all trials, not over the values of a few.

Early stopping leaves few trials complete, and those are alike: what made the others bad is what one wants to know.
So every trial that says something of its parameters takes part, by its place in the sweep. For PED-ANOVA (Watanabe et
al. 2023, arXiv:2304.10255; with conditions 2026, arXiv:2601.20800), which asks where the best few lie among all, places
say as much as values; to fANOVA (Hutter et al. 2014) they are the response, which no outlier then governs.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from saddlepoint.metrics.objective import Objective
from saddlepoint.search.pareto import fronts
from saddlepoint.search.reading import distribution, searched
from saddlepoint.search.records import Outcome, TrialRecord
from saddlepoint.space import Space

FEWEST = 15  # trials below which no importance is worth a look: of 10, a parameter without effect got 38 %
TOP = 5  # at least so many of the best against the rest: below, PED-ANOVA's densities are noise (Optuna's advice)
FIRM = 30  # trials from which on the order of the parameters hardly depends on chance
FANOVA_AT_MOST = 200  # trials; its forest takes some two seconds there, and grows faster than they do


@dataclass(frozen=True)
class Importance:
    """Shares that add up to 1, the largest first."""

    trials: int  # that took part
    top: int = 0  # how many of them PED-ANOVA sets against all
    ped_anova: dict[str, float] = field(default_factory=dict)  # empty: nothing can be said, and `note` says why
    fanova: dict[str, float] = field(default_factory=dict)  # only parameters that every trial has
    note: str = ""  # how far to believe it


def places(records: Sequence[TrialRecord], objective: Objective) -> dict[int, int]:
    """By number, the place of every trial whose end says something of its parameters: 0 is the best, equals share one.

    Feasible ones first, by the metric or by non-dominated rank; then those outside the bounds, by how far; then the
    pruned ones, by how far they came, then by what they last scored; last what diverged or ran out of memory.
    """
    layers = _layers({r.number: objective.badness(r.scores) for r in records if r.feasible})
    keys: dict[int, tuple[float, float, float]] = {}
    for record in records:
        match record.state:
            case Outcome.COMPLETE if record.feasible:
                keys[record.number] = (0, layers[record.number], 0)
            case Outcome.COMPLETE:
                keys[record.number] = (1, *objective.key(record.scores))
            case Outcome.PRUNED:
                reached, value = max(record.intermediate.items(), default=(0, math.nan))
                bad = objective.metric.badness(value)
                keys[record.number] = (2, -reached, math.inf if math.isnan(bad) else bad)
            case Outcome.DIVERGED | Outcome.OUT_OF_MEMORY:
                keys[record.number] = (3, 0, 0)
    order = {key: place for place, key in enumerate(sorted(set(keys.values())))}
    return {number: order[key] for number, key in keys.items()}


def importance(records: Sequence[TrialRecord], space: Space, objective: Objective) -> Importance:
    """Of each parameter that is searched, by trials that lie inside the space."""
    place = places(records, objective)
    ranked = [record for record in records if record.number in place]
    if len(ranked) < FEWEST:
        return Importance(len(ranked), note=f"too few trials have ended to say: {len(ranked)} of the {FEWEST} it takes")
    if len(set(place.values())) < 2:
        return Importance(len(ranked), note="all trials ended alike, so nothing tells the parameters apart")
    study = _study(ranked, space, place)
    top = max(TOP, math.ceil(len(ranked) / 10))
    ped_anova = _shares(PedAnovaImportanceEvaluator(target_quantile=top / len(ranked)), study)
    if not ped_anova:
        return Importance(len(ranked), top, note="no parameter tells the best trials from the others")
    fanova = _shares(FanovaImportanceEvaluator(seed=0), study) if len(ranked) <= FANOVA_AT_MOST else {}
    note = f"{len(ranked)} trials are few: the order may be chance" if len(ranked) < FIRM else ""
    return Importance(len(ranked), top, ped_anova, fanova, note)


def _layers(badness: Mapping[int, tuple[float, ...]]) -> dict[int, float]:
    """The metric itself; of two, the non-dominated rank."""
    ordered = sorted(badness.items(), key=lambda each: each[1])
    points = [(bad[0], bad[1]) for _, bad in ordered if len(bad) == 2]
    layers: Sequence[float] = fronts(points) if points else [bad[0] for _, bad in ordered]
    return dict(zip((number for number, _ in ordered), layers, strict=True))


def _study(records: Sequence[TrialRecord], space: Space, place: Mapping[int, int]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for record in records:
        values = searched(space, record.values)
        kinds = {name: distribution(space, name) for name in values}
        study.add_trial(create_trial(params=values, distributions=kinds, value=float(place[record.number])))
    return study


def _shares(evaluator: BaseImportanceEvaluator, study: optuna.Study) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of conditions under which hardly a trial lies: they count little
        raw = evaluator.evaluate(study)
    total = sum(raw.values())
    return {name: float(value / total) for name, value in raw.items()} if total > 0 else {}

"""Bounds and second metrics: what the sampler learns, what is best, what lies on the front."""

import itertools

import pytest

from saddlepoint.errors import UserError
from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search.ledger import Ledger
from saddlepoint.search.records import Outcome
from saddlepoint.search.settle import margin
from saddlepoint.space import Space

SPACE = Space.model_validate(
    {
        "game": "g",
        "parameters": {
            "x": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
            "y": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.9},
            "n": {"type": "choice", "choices": [1, 2, 5], "default": 5},
        },
    }
)
RECALL = Bound("recall", at_least=0.5)
ONE, TWO = Objective.of("fid"), Objective.of("fid", "recall")
BOUND, BOTH = Objective.of("fid", None, RECALL), Objective.of("fid", "recall", Bound("density", at_most=1.0))


def open_(objective, **options):
    return Ledger.open(None, "s", space=SPACE, objective=objective, **{"rounds": 9, "pruner": "none"} | options)


def told(ledger, *results, outcome=Outcome.COMPLETE):
    for fid, recall in results:
        ledger.tell(ledger.next(1000).number, outcome, {"fid": fid, "recall": recall, "density": 0.9})


def numbers(records):
    return [record.number for record in records]


def test_best_is_feasible_and_the_least_violation_only_if_none_is():
    ledger = open_(BOUND)
    told(ledger, (1.0, 0.1), (2.0, 0.4), (3.0, 0.4))
    assert numbers(ledger.best(2)) == [1, 2]  # both violate by 0.2, and the smaller FID wins
    assert not ledger.best()[0].feasible
    assert ledger.front() == []
    told(ledger, (9.0, 0.5), (7.0, 0.9), (7.0, 0.6))
    assert numbers(ledger.best(9)) == [4, 5, 3]
    assert numbers(ledger.front()) == [4, 5]
    assert ledger.trials()[0].scores == {"fid": 1.0, "recall": 0.1}  # what the objective does not name is not kept


def test_the_front_of_two_metrics():
    ledger = open_(BOTH)
    told(ledger, (5.0, 0.9), (3.0, 0.7), (4.0, 0.6), (1.0, 0.1))
    ledger.tell(ledger.next(9).number, Outcome.COMPLETE, {"fid": 0.5, "recall": 0.99, "density": 1.5})
    assert numbers(ledger.front()) == [3, 1, 0]
    assert numbers(ledger.best(2)) == [3, 1]
    assert [direction.name for direction in ledger.study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.values for trial in ledger.study.trials][:2] == [[5.0, 0.9], [3.0, 0.7]]


def test_margins_are_signed_and_in_units_of_the_bound():
    assert margin(RECALL, 0.4) == pytest.approx(0.2)
    assert margin(RECALL, 0.6) == pytest.approx(-0.2)
    assert margin(Bound("fid", at_most=20.0), 30.0) == pytest.approx(0.5)
    both = Bound("density", at_least=0.5, at_most=1.0)
    assert [margin(both, at) for at in (0.4, 0.75, 1.2)] == pytest.approx([0.2, -0.25, 0.2])
    for at in (0.3, 0.5, 0.7):
        assert (margin(RECALL, at) > 0) == (RECALL.violation(at) > 0)


@pytest.mark.parametrize(
    ("objective", "outcome", "expected"),
    [
        (ONE, Outcome.COMPLETE, {}),
        (ONE, Outcome.DIVERGED, {"diverged": 1e6}),
        (ONE, Outcome.OUT_OF_MEMORY, {"out of memory": 1e6}),
        (ONE, Outcome.FAILED, {}),
        (BOUND, Outcome.COMPLETE, {"recall": 0.2}),
        (BOUND, Outcome.PRUNED, {"recall": -0.2}),
        (BOUND, Outcome.DIVERGED, {"diverged": 1e6}),
        (TWO, Outcome.PRUNED, {"stopped early": 1e-3 / 4}),
        (TWO, Outcome.DIVERGED, {"diverged": 1e6}),
        (BOTH, Outcome.PRUNED, {"density": -0.1, "stopped early": 1e-3 / 4}),
    ],
)
def test_what_optuna_is_told_of_an_end(objective, outcome, expected):
    ledger = open_(objective)
    number = ledger.next(1).number
    ledger.report(number, 3, {"fid": 8.0, "recall": 0.6, "density": 0.9})
    ledger.tell(number, outcome, {"fid": 7.0, "recall": 0.4, "density": 0.9})
    (trial,) = ledger.study.trials
    assert trial.constraints == pytest.approx(expected)
    assert trial.intermediate_values == ({3: 8.0} if objective.second is None else {})
    states = {"complete": "COMPLETE", "failed": "FAIL"}
    assert trial.state.name == states.get(outcome.value, "PRUNED")
    assert ledger.trials()[0].curves["fid"] == {3: 8.0}


def test_with_two_metrics_tpe_learns_of_pruned_trials_by_their_rounds_then_their_place():
    ledger = open_(TWO, pruner="successive_halving", min_rounds=1)
    ends = {}
    for step, fid, recall in [(3, 1.0, 0.9), (1, 5.0, 0.1), (3, 2.0, 0.5), (1, 6.0, 0.05), (6, 9.0, 0.01)]:
        number = ledger.next(9).number
        for at in (1, 3, 6):
            if at <= step:
                ledger.report(number, at, {"fid": fid, "recall": recall})
        ends[number] = step
    for number in ends:
        ledger.tell(number, Outcome.PRUNED)
    violations = {trial.number: sum(trial.constraints.values()) for trial in ledger.study.trials}
    assert sorted(violations, key=violations.get) == [4, 0, 2, 1, 3]
    assert max(violations.values()) < 1e-3


def share_in_the_collapse(objective, sampler, seeds):
    """Of 4 proposals after 12 trials; those with x < 0.5 had the better FID, and next to no recall."""
    inside = 0
    for seed in range(seeds):
        ledger = open_(objective, seed=seed, sampler=sampler)
        for trial in range(12):
            low = trial % 2 == 0
            ledger.enqueue({"x": 0.04 * trial if low else 1 - 0.04 * trial, "y": (trial * 0.37) % 1, "n": 1})
            told(ledger, (0.1 + 0.001 * trial, 0.02) if low else (1 + 0.01 * ((trial * 5) % 7), 0.8))
        for _ in range(4):
            suggestion = ledger.next(100)
            inside += suggestion.values["x"] < 0.5
            ledger.tell(suggestion.number, Outcome.FAILED)
    return inside / (4 * seeds)


@pytest.mark.parametrize(("sampler", "seeds"), [("tpe", 6), pytest.param("gp", 2, marks=pytest.mark.slow)])
def test_a_bound_turns_the_sampler_away(sampler, seeds):
    blind = share_in_the_collapse(ONE, sampler, seeds)
    bound = share_in_the_collapse(BOUND, sampler, seeds)
    assert blind > 0.6
    assert bound < 0.35


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [*itertools.product(["tpe", "random", "qmc"], ["successive_halving", "hyperband", "none"]), ("gp", "none")],
)
def test_two_metrics_with_every_sampler_and_pruner(sampler, pruner):
    ledger = open_(BOTH, sampler=sampler, pruner=pruner)
    while suggestion := ledger.next(8 if sampler == "gp" else 20):
        x, y = suggestion.values["x"], suggestion.values["y"]
        for step in range(1, 10):
            scores = {"fid": (x + y**2) * (1 + 1 / step), "recall": x * step / 9, "density": y * 1.2}
            if step == 9:
                ledger.tell(suggestion.number, Outcome.COMPLETE, scores)
            elif ledger.report(suggestion.number, step, scores):
                ledger.tell(suggestion.number, Outcome.PRUNED)
                break
    records = ledger.trials()
    assert any(record.state == "pruned" for record in records) == (pruner != "none")
    front = ledger.front()
    assert front
    assert all(record.scores["density"] <= 1 for record in front)
    for one, other in itertools.combinations(front, 2):
        assert (one.scores["fid"] < other.scores["fid"]) == (one.scores["recall"] < other.scores["recall"])


@pytest.mark.parametrize(("objective", "key"), [(TWO, "second"), (BOUND, "constraints")])
def test_cmaes_refuses_what_it_would_not_heed(objective, key):
    with pytest.raises(UserError, match=rf"^search.sampler: 'cmaes' knows no objective.{key}; take tpe, gp"):
        open_(objective, sampler="cmaes")


def test_a_bound_that_is_violated_early_is_no_reason_to_stop():
    ledger = open_(BOUND, pruner="successive_halving", min_rounds=1)
    first, second, third, fourth = (ledger.next(9).number for _ in range(4))
    assert not ledger.report(first, 1, {"fid": 9.0, "recall": 0.1})
    assert not ledger.report(second, 1, {"fid": 99.0, "recall": 0.2})  # less violated comes before less FID
    assert ledger.report(third, 1, {"fid": 1.0, "recall": 0.15})
    assert not ledger.report(fourth, 1, {"fid": 100.0, "recall": 0.5})
    assert not ledger.report(second, 2, {"fid": 99.0, "recall": 0.01})


def test_spent_rounds_are_those_that_were_reported_and_all_of_a_complete_trial():
    ledger = open_(ONE)
    first, second, _ = (ledger.next(3).number for _ in range(3))
    ledger.report(first, 6, {"fid": 1.0})
    ledger.tell(first, Outcome.COMPLETE, {"fid": 1.0})
    ledger.report(second, 2, {"fid": 1.0})
    ledger.report(second, 5, {"fid": 1.0})
    assert ledger.spent_rounds() == 9 + 5

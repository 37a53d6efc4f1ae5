"""Fronts, spread and rungs: closed forms, and a comparison of all pairs."""

import itertools
import random

import pytest

from saddlepoint.errors import UserError
from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search.pareto import fronts, spread
from saddlepoint.search.pruners import Halving, Rung, make_pruner

FID = Objective.of("fid")
BOTH = Objective.of("fid", "recall")
BOUND = Objective.of("fid", None, Bound("recall", at_least=0.5))


def dominates(a, b):
    return a != b and a[0] <= b[0] and a[1] <= b[1]


@pytest.mark.parametrize("seed", range(20))
def test_fronts_are_those_that_peeling_finds(seed):
    draw = random.Random(seed)
    points = sorted((draw.randrange(8), draw.randrange(8)) for _ in range(30))  # few values: many ties
    left, rank, peeled = set(range(30)), 0, {}
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        peeled |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    assert fronts(points) == [peeled[i] for i in range(30)]


def test_spread_takes_the_ends_then_the_middle():
    line = [(0.0, 100.0), (1.0, 75.0), (2.0, 50.0), (3.0, 25.0), (4.0, 0.0)]
    assert spread(line)[:3] == [0, 4, 2]
    crowded = [(0.0, 1.0), (0.01, 0.99), (0.02, 0.98), (1.0, 0.0)]
    assert spread(crowded)[:2] == [0, 3]
    assert sorted(spread(crowded)) == [0, 1, 2, 3]
    # Each metric in units of its extent: another scale changes nothing.
    assert spread([(a * 1e6, b) for a, b in line]) == spread(line)
    assert spread([(1.0, 1.0)]) == [0]


def kept(objective, eta, arrivals):
    rung, answers = Rung(objective), []
    for scores in arrivals:
        answers.append(rung.takes(scores, eta))
        rung.add(scores)
    return answers


def test_one_metric_keeps_the_best_third_of_all_that_came():
    assert kept(FID, 3, [{"fid": v} for v in (5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 2.0)]) == [
        True, False, True, False, True, True, True,
    ]  # fmt: skip
    assert kept(FID, 3, [{"fid": 1.0}] * 3) == [True] * 3  # equals are all among the best


def test_who_violates_a_bound_stands_behind_all_who_do_not():
    arrivals = [(9.0, 0.1), (8.0, 0.2), (50.0, 0.6), (1.0, 0.49), (40.0, 0.9), (30.0, 0.5)]
    # The first two violate, but nobody is better yet; 1.0 is the best FID, and behind 50.0; 6 // 3 = 2 places.
    assert kept(BOUND, 3, [{"fid": f, "recall": r} for f, r in arrivals]) == [True, True, True, False, True, True]


def test_two_metrics_keep_the_first_fronts_and_of_the_last_its_spread():
    first = [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.4), (5.0, 0.5)]
    arrivals = [{"fid": f, "recall": r} for f, r in first]

    def comes(fid, recall):
        rung = Rung(BOTH)
        for scores in arrivals:
            rung.add(scores)
        return rung.takes({"fid": fid, "recall": recall}, 3)

    # Two places of six: on a front of six they go to its ends.
    assert comes(0.5, 0.05)  # a new end: the best FID
    assert comes(6.0, 0.9)  # the best recall
    assert not comes(3.2, 0.31)  # on the front, in its crowd
    assert not comes(3.2, 0.2)  # dominated
    assert comes(0.5, 0.9)  # dominates all


def test_hyperband_draws_brackets_by_what_they_cost_and_each_has_rungs_of_its_own():
    pruner = make_pruner("hyperband", objective=FID, rounds=9, first=1, eta=3, seed=0)
    assert isinstance(pruner, Halving)
    brackets = [pruner._bracket(number) for number in range(3000)]
    shares = [brackets.count(bracket) / 3000 for bracket in range(3)]
    # n of each bracket as in Hyperband's line 3, without the rounding up: 3/3 * 9, 3/2 * 3, 3/1 * 1 of 16.5.
    assert shares == pytest.approx([9 / 16.5, 4.5 / 16.5, 3 / 16.5], abs=0.04)
    for number, bracket in enumerate(brackets[:200]):  # the later the worse: all but the first are stopped
        stops = [step for step in (1, 3) if pruner.stops(number, step, {"fid": float(number)})]
        for step in (1, 3):
            pruner.seen(number, step, {"fid": float(number)})
        if number > 50:
            assert min(stops, default=9) == (1, 3, 9)[bracket]


def test_what_a_pruner_says_hangs_on_the_scores_and_not_on_when_it_heard_them():
    draw = random.Random(0)
    for name, objective in itertools.product(("successive_halving", "hyperband"), (FID, BOTH, BOUND)):
        live = make_pruner(name, objective=objective, rounds=9, first=1)
        heard = []
        for number in range(40):
            for step in (1, 2, 5):  # the rung of 3 is decided at 5
                scores = {"fid": draw.random(), "recall": draw.random()}
                again = make_pruner(name, objective=objective, rounds=9, first=1)
                for told in sorted(heard, key=lambda told: told[:2], reverse=False):
                    again.seen(*told)
                assert again.stops(number, step, scores) == live.stops(number, step, scores)
                live.seen(number, step, scores)
                heard.append((number, step, scores))


def test_a_pruner_that_compares_one_metric_refuses_two():
    with pytest.raises(UserError, match=r"^search.pruner: 'median' compares by one metric; with objective.second"):
        make_pruner("median", objective=BOTH, rounds=9)

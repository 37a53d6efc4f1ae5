"""Which of two results is better, against Deb's three rules written out and a front found by hand."""

import math

import pytest

from saddlepoint.metrics import Bound, Objective

FID_WITH_RECALL = Objective.of("fid", None, Bound("recall", at_least=0.5))
FRONT = Objective.of("fid", "recall")


def test_a_collapse_that_wins_on_the_score_alone_loses() -> None:
    collapsed, honest = {"fid": 3.0, "recall": 0.05}, {"fid": 20.0, "recall": 0.5}
    assert Objective.of("fid").is_better(collapsed, honest)
    assert FID_WITH_RECALL.is_better(honest, collapsed)
    assert not FID_WITH_RECALL.is_better(collapsed, honest)
    assert FID_WITH_RECALL.feasible(honest)  # the bound itself is inside
    assert FID_WITH_RECALL.violations(collapsed) == {"recall": pytest.approx(0.9, abs=1e-12)}  # 0.45 of 0.5


def test_of_two_infeasible_results_the_smaller_violation_is_better() -> None:
    near, far = {"fid": 90.0, "recall": 0.45}, {"fid": 3.0, "recall": 0.05}
    assert FID_WITH_RECALL.is_better(near, far)
    assert FID_WITH_RECALL.is_better({"fid": 3.0, "recall": 0.05}, {"fid": 4.0, "recall": 0.05})


def test_violations_of_several_bounds_are_measured_each_by_its_own_size() -> None:
    objective = Objective.of("fid", None, Bound("emd", at_most=200.0), Bound("recall", at_least=0.5))
    assert objective.violation({"fid": 1.0, "emd": 220.0, "recall": 0.4}) == pytest.approx(0.1 + 0.2, abs=1e-12)
    assert Bound("recall", at_least=0.0).violation(-0.25) == 0.25  # a bound of zero has no size
    within = Bound("std_ratio", 0.5, 2.0)
    assert [within.violation(value) for value in (0.25, 0.5, 2.0, 3.0)] == [0.5, 0.0, 0.0, 0.5]


def test_nan_is_never_better_and_never_feasible() -> None:
    nan = {"fid": math.nan, "recall": math.nan}
    good = {"fid": 1e9, "recall": 0.9}
    assert FID_WITH_RECALL.is_better(good, nan)
    assert not FID_WITH_RECALL.is_better(nan, good)
    assert not FID_WITH_RECALL.feasible(nan)
    assert FRONT.badness(nan) == (math.inf, math.inf)


def test_a_higher_metric_is_better_where_its_name_says_so() -> None:
    coverage = Objective.of("coverage")
    assert coverage.is_better({"coverage": 0.8}, {"coverage": 0.7})
    assert not coverage.is_better({"coverage": 0.7}, {"coverage": 0.7})


def test_the_front_holds_what_nothing_dominates() -> None:
    results = [
        {"fid": 10.0, "recall": 0.5},
        {"fid": 12.0, "recall": 0.5},  # dominated by the first
        {"fid": 20.0, "recall": 0.9},
        {"fid": 5.0, "recall": 0.1},
        {"fid": 20.0, "recall": 0.9},  # the same as the third: neither dominates
        {"fid": math.nan, "recall": 0.99},
    ]
    assert FRONT.front(results) == [3, 0, 2, 4, 5]  # NaN in one metric does not hide the other
    bounded = Objective.of("fid", "recall", Bound("recall", at_least=0.3))
    assert bounded.front(results[:5]) == [0, 2, 4]
    assert Objective.of("fid").front(results) == [3]


def test_every_metric_that_it_looks_at_is_named_once() -> None:
    objective = Objective.of("fid", "recall", Bound("recall", at_least=0.3), Bound("coverage", at_least=0.1))
    assert objective.names == ("fid", "recall", "coverage")
    assert str(Bound("recall", at_least=0.3)) == "recall >= 0.3"
    assert str(Bound("std_ratio", 0.5, 2.0)) == "std_ratio >= 0.5 and <= 2"

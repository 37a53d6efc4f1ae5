"""The charts of a sweep, and what matters in it: on records made up, whose truth is known."""

import math
import random
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pytest

from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search import figures
from saddlepoint.search.importance import FEWEST, Importance, importance, places
from saddlepoint.search.ink import log_ticks, number, tick
from saddlepoint.search.records import TrialRecord
from saddlepoint.space import Space

FID, BOTH = Objective.of("fid"), Objective.of("fid", "recall")
SPACE = Space.model_validate(
    {
        "game": "wgan",
        "parameters": {
            "lr": {"type": "log_float", "low": 1e-5, "high": 1e-1, "default": 1e-3},
            "idle": {"type": "float", "low": 0, "high": 1, "default": 0.5},
            "kind": {"type": "choice", "choices": ["a", "b"], "default": "a"},
            "depth": {"type": "int", "low": 1, "high": 9, "default": 3, "when": {"kind": "a"}},
            "z_dim": {"type": "fixed", "value": 8},
        },
    }
)


def record(number: int, state: str = "complete", **known: Any) -> TrialRecord:
    scores = known.get("scores", {})
    curves = known.get("curves", {})
    return TrialRecord(
        number=number,
        values=known.get("values", {}),
        seed=0,
        state=state,
        value=scores.get("fid"),
        scores=scores,
        feasible=known.get("feasible", state == "complete"),
        intermediate=curves.get("fid", {}),
        curves=curves,
        reason=known.get("reason"),
        run_id=None,
        attrs={},
        started=None,
        ended=None,
    )


def sampled(n: int, badness: Callable[[dict[str, Any]], float], seed: int = 0) -> list[TrialRecord]:
    """n complete trials at random, whose fid is a function of their values."""
    rng = random.Random(seed)
    records = []
    for i in range(n):
        values: dict[str, Any] = {"lr": 10 ** rng.uniform(-5, -1), "idle": rng.random(), "kind": rng.choice("ab")}
        if values["kind"] == "a":
            values["depth"] = rng.randint(1, 9)
        records.append(record(i, values=values | {"z_dim": 8}, scores={"fid": badness(values), "recall": 0.5}))
    return records


def every_kind() -> list[TrialRecord]:
    """A sweep in which each state occurs, some trials with values and some without."""
    records = sampled(20, lambda v: 10 + 100 * (math.log10(v["lr"]) + 3) ** 2)
    for i, state in enumerate(("pruned", "diverged", "out of memory", "failed", "running", "waiting", "duplicate")):
        known = {"values": records[i].values, "reason": f"<a href='http://x.y'>{state}</a>"}
        curves = {"fid": {4: 300.0, 8: 200.0}, "recall": {4: 0.1, 8: math.nan}} if i % 2 == 0 else {}
        records.append(record(20 + i, state, curves=curves, **known))
    return records


def test_the_parameter_that_decides_everything_matters_most_and_an_idle_one_hardly():
    found = importance(sampled(60, lambda v: (math.log10(v["lr"]) + 3) ** 2), SPACE, FID)
    for shares in (found.ped_anova, found.fanova):
        assert sum(shares.values()) == pytest.approx(1)
        assert next(iter(shares)) == "lr"
        assert shares["lr"] > 0.9
        assert 0 <= shares["idle"] < 0.05
    assert set(found.ped_anova) == {"lr", "idle", "kind", "depth"}  # the fixed one is not searched
    assert set(found.fanova) == {"lr", "idle", "kind"}  # the conditional one is not in every trial
    assert (found.trials, found.top, found.note) == (60, 6, "")


def test_a_parameter_under_a_condition_can_be_the_one_that_matters():
    found = importance(sampled(80, lambda v: v.get("depth", 9)), SPACE, FID)
    assert found.ped_anova["depth"] > found.ped_anova["lr"] + found.ped_anova["idle"]


def test_pruned_and_diverged_trials_say_what_matters_too():
    """All complete ones are alike; only what became of the rest tells that lr decides."""
    records = [
        r if 1e-4 < r.values["lr"] < 1e-2 else record(r.number, "diverged", values=r.values)
        for r in sampled(60, lambda v: 10.0)
    ]
    assert importance(records, SPACE, FID).ped_anova["lr"] > 0.8


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "0 of the 15"),
        (sampled(FEWEST - 1, lambda v: v["lr"]), f"{FEWEST - 1} of the {FEWEST}"),
        ([record(i, "failed") for i in range(40)], "0 of the 15"),  # an error says nothing of the parameters
        ([record(i, "diverged", values={"lr": 0.1}) for i in range(40)], "ended alike"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(records, said):
    found = importance(records, SPACE, FID)
    assert found.ped_anova == {}
    assert said in found.note


def test_places_put_the_feasible_first_then_the_nearer_then_those_that_came_far():
    bounded = Objective.of("fid", None, Bound("recall", at_least=0.5))
    records = [
        record(0, "diverged"),
        record(1, "pruned", curves={"fid": {100: 9.0}}),
        record(2, "pruned", curves={"fid": {100: 8.0, 200: 99.0}}),
        record(3, scores={"fid": 1.0, "recall": 0.1}, feasible=False),
        record(4, scores={"fid": 5.0, "recall": 0.4}, feasible=False),
        record(5, scores={"fid": 70.0, "recall": 0.6}),
        record(6, scores={"fid": 60.0, "recall": 0.9}),
        record(7, "out of memory"),
        record(8, "failed"),
        record(9, "running"),
    ]
    assert places(records, bounded) == {6: 0, 5: 1, 4: 2, 3: 3, 2: 4, 1: 5, 0: 6, 7: 6}


def test_places_of_two_metrics_are_fronts():
    points = [(1.0, 0.1), (2.0, 0.5), (3.0, 0.4), (4.0, 0.3), (2.0, 0.5), (0.5, 0.05)]  # fid down, recall up
    records = [record(i, scores={"fid": f, "recall": r}) for i, (f, r) in enumerate(points)]
    assert places(records, BOTH) == {0: 0, 1: 0, 4: 0, 5: 0, 2: 1, 3: 2}


def test_every_chart_is_one_that_plotly_knows():
    """plotly refuses names and values that it does not know."""
    records = every_kind()
    found = Importance(20, 5, {"lr": 0.9, "idle": 0.1}, {"lr": 1.0})
    drawn = [
        figures.best_so_far(records, FID, {"floor": 3.0}),
        figures.pareto(records, BOTH, records[:3]),
        figures.learning_curves(records, FID.metric, [4, 8], 3),
        figures.importances(found),
        figures.parallel(records, SPACE, BOTH, places(records, BOTH)),
        *figures.slices(records, SPACE, FID).values(),
        figures.intervals(["<b>", "2"], [1.0, 2.0], [(0.5, 1.5), None], [[0.9, 1.1], [2.0]], FID.metric, 0.1),
        *figures.slices(records[21:22], SPACE, FID).values(),
    ]
    for figure in drawn:
        assert go.Figure(figure).data
        assert "<a" not in str(figure)  # plotly would make a link of it


def test_the_best_so_far_is_a_staircase_over_feasible_trials():
    values = [(50.0, True), (40.0, True), (45.0, True), (5.0, False), (30.0, True)]
    records = [record(i, scores={"fid": fid}, feasible=ok) for i, (fid, ok) in enumerate(values)]
    records.append(record(5, "diverged"))
    line, *_ = figures.best_so_far(records, FID, {})["data"]
    assert line["name"] == "best so far"
    assert (line["x"], line["y"]) == ([0, 1, 4, 5], [50.0, 40.0, 30.0, 30.0])


def test_each_state_is_a_trace_and_what_has_no_value_stands_apart():
    traces = figures.best_so_far(every_kind(), FID, {})["data"]
    count = {(t["name"], t.get("yaxis", "y")): len(t["x"]) for t in traces if t["mode"] == "markers"}
    assert count == {
        ("complete", "y"): 20,
        ("pruned, where it was stopped", "y"): 1,
        ("diverged", "y2"): 1,
        ("out of memory", "y"): 1,
        ("failed", "y2"): 1,
        ("running", "y"): 1,
        ("waiting", "y2"): 1,
        ("duplicate", "y"): 1,
    }


def test_curves_of_many_trials_are_one_line_with_gaps():
    records = [record(i, curves={"fid": {4: 9.0 + i, 8: 5.0}}, scores={"fid": 5.0}) for i in range(3)]
    rest, best = figures.learning_curves(records, FID.metric, [], best=1)["data"]
    assert (rest["x"], rest["y"]) == ([4, 8, None, 4, 8, None], [9.0, 5.0, None, 11.0, 5.0, None])
    assert best["y"] == [10.0, 5.0, None]


def test_an_axis_is_logarithmic_where_values_span_decades():
    def axis(*fids: float) -> dict[str, Any]:
        records = [record(i, scores={"fid": fid}) for i, fid in enumerate(fids)]
        return figures.best_so_far(records, FID, {})["layout"]["yaxis"]

    assert axis(3.0, 700.0)["type"] == "log"
    assert "type" not in axis(3.0, 7.0)
    assert "type" not in axis(-3.0, 700.0)
    assert figures.slices(sampled(1, lambda v: 1.0), SPACE, FID)["lr"]["layout"]["xaxis"]["type"] == "log"


def test_parallel_coordinates_have_a_place_for_what_a_trial_does_not_have():
    records = [
        record(0, values={"lr": 1e-3, "idle": 0.5, "kind": "b"}, scores={"fid": 5.0}),
        record(1, "diverged", values={"lr": 1e-1, "idle": 0.5, "kind": "a", "depth": 9}),
    ]
    figure = figures.parallel(records, SPACE, FID, places(records, FID))
    assert figure is not None
    by_name = {axis["label"]: axis for axis in figure["data"][0]["dimensions"]}
    assert list(by_name) == ["lr", "idle", "kind", "depth", "fid"]
    assert by_name["lr"]["values"] == pytest.approx([-1, -3])  # the best is drawn last
    depth = by_name["depth"]
    assert depth["ticktext"][0] == "absent"
    assert depth["values"] == [9, depth["tickvals"][0]]
    assert depth["tickvals"][0] < 1
    assert by_name["fid"]["ticktext"][0] == "none"
    assert figures.parallel(records[1:], SPACE, FID, {1: 0}) is None  # nothing has scored


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12, "12"), (0.12345, "0.123"), (4.56e-5, "4.56e-05"), (98765.4, "98765"), ("a", "a"), (True, "True")],
)
def test_numbers_are_set_with_the_digits_that_count(value, text):
    assert number(value) == text


def test_ticks_of_a_log_axis():
    assert log_ticks(0.02, 3.0) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50])
    assert log_ticks(1e-5, 1e-2) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])
    assert [tick(value) for value in (1e-5, 0.002, 50.0, 2e7)] == ["1e-5", "0.002", "50", "2e7"]

"""Intervals against closed forms and seeded simulations; who is confirmed, and who wins."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from saddlepoint.console import confirmation_table
from saddlepoint.generator import Generator, save_generator
from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.search.records import TrialRecord
from saddlepoint.spec import ConfirmSpec, Pipeline
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import Training
from saddlepoint.workflows import evidence
from saddlepoint.workflows.confirm import Candidate, Confirmation, chosen, ranked
from saddlepoint.workflows.evidence import Estimate, drawn, estimates, remembered
from saddlepoint.workflows.promote import compare

T_975_4, T_975_2, T_95_4 = 2.7764, 4.3027, 2.1318  # Student's t, from the tables
FID, RECALL = Objective.of("fid"), Objective.of("fid", None, Bound("recall", at_least=0.5))


def test_an_interval_is_that_of_the_tables() -> None:
    five = Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0], 0.95)
    assert five.mean == 3
    assert five.sd == pytest.approx(sqrt(2.5))
    assert five.half == pytest.approx(T_975_4 * sqrt(2.5) / sqrt(5), rel=1e-4)
    assert (five.low, five.high) == pytest.approx((3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0], 0.9).half == pytest.approx(T_95_4 * sqrt(0.5), rel=1e-4)
    assert Estimate.of([20.0, 22.0, 24.0], 0.95).half == pytest.approx(T_975_2 * 2 / sqrt(3), rel=1e-4)


def test_one_value_has_no_interval_and_equal_ones_have_none_to_speak_of() -> None:
    assert Estimate.of([7.0], 0.95) == Estimate(7.0, None, None, None, 1)
    assert Estimate.of([7.0, 7.0], 0.95) == Estimate(7.0, 0.0, 7.0, 7.0, 2)


@pytest.mark.parametrize(("count", "confidence"), [(3, 0.95), (5, 0.8)])
def test_as_many_intervals_as_said_hold_the_true_mean(count: int, confidence: float) -> None:
    rows = np.random.default_rng(0).normal(26, 3, (3000, count))
    found = [Estimate.of(row.tolist(), confidence) for row in rows]
    held = np.mean([each.low <= 26 <= each.high for each in found])  # type: ignore[operator]
    assert held == pytest.approx(confidence, abs=3 * sqrt(confidence * (1 - confidence) / 3000))


def test_estimates_are_of_what_every_score_has() -> None:
    found = estimates([{"fid": 1.0, "emd": 1.0}, {"fid": 3.0}], 0.95)
    assert found == {"fid": Estimate.of([1.0, 3.0], 0.95)}
    assert estimates([], 0.95) == {}


def verdicts(shift: float, common: float, times: int = 2000) -> list[Any]:
    """Challengers better by `shift`: five draws of each, of which both owe `common` (a standard deviation) to the
    noise that they share, and 1 to themselves."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0, common, (times, 5))
    ours, theirs = (30 - change + shared + rng.normal(0, 1, (times, 5)) for change in (shift, 0))
    spec = ConfirmSpec(draws=5, confidence=0.95)
    return [
        compare(FID, mine.tolist(), yours.tolist(), "version 1", spec, "5 draws of 100")
        for mine, yours in zip(ours, theirs, strict=True)
    ]


def test_an_equal_challenger_is_accepted_as_rarely_as_the_confidence_says() -> None:
    better = np.mean([verdict.better for verdict in verdicts(0, common=2)])
    assert better == pytest.approx(0.025, abs=3 * sqrt(0.025 * 0.975 / 2000))


def test_what_two_generators_owe_to_the_same_noise_cancels() -> None:
    alone, beside = (np.mean([v.better for v in verdicts(3, common, times=500)]) for common in (0, 30))
    assert alone == beside
    assert beside > 0.9  # unpaired, a difference of 3 would drown in a deviation of 30


def test_a_verdict_gives_its_numbers_in_one_sentence() -> None:
    spec = ConfirmSpec(draws=2, confidence=0.95)
    half = 12.7062 * sqrt(2) * 0.1 / sqrt(2)  # t with one degree of freedom; the gains differ by 0.2

    def said(*ours: float, objective: Objective = FID) -> str:
        return compare(objective, list(ours), [30.0, 30.0], "version 3", spec, "2 draws of 898").reason

    better = f"it is better by 4 ± {half:.2g} (95 %, 2 draws of 898)"
    assert said(25.9, 26.1) == f"fid 26 ± {half:.2g} beats 30 ± 0 of version 3: {better}"
    within = f"the difference 0.5 lies within ±{half:.2g} (95 %, 2 draws of 898)"
    assert said(29.4, 29.6) == f"fid 29.5 ± {half:.2g} does not beat 30 ± 0 of version 3: {within}"
    worse = f"it is worse by 4 ± {half:.2g} (95 %, 2 draws of 898)"
    assert said(33.9, 34.1) == f"fid 34 ± {half:.2g} does not beat 30 ± 0 of version 3: {worse}"
    assert " beats " in said(33.9, 34.1, objective=Objective.of("recall"))  # where more is better


def test_scores_that_are_not_finite_lose() -> None:
    spec = ConfirmSpec(draws=2)
    for ours, theirs, better in [
        ([nan, 1.0], [30.0, 30.0], False),
        ([30.0, 30.0], [inf, 30.0], True),
        ([inf, inf], [nan, nan], False),
    ]:
        verdict = compare(FID, ours, theirs, "version 3", spec, "2 draws of 898")
        assert verdict.better is better
        assert "not all draws are finite" in verdict.reason


def trial(number: int, **scores: float) -> TrialRecord:
    return TrialRecord(
        number, {"lr": number}, 0, "complete", scores["fid"], scores, True, {}, {}, None, None, {}, None, None
    )  # fmt: skip


def numbers(trials: list[TrialRecord]) -> list[int]:
    return [each.number for each in trials]


def test_of_one_metric_the_best_are_chosen_and_none_twice() -> None:
    found = [trial(0, fid=30.0), trial(1, fid=20.0), trial(2, fid=25.0)]
    again = replace(found[1], number=3)
    assert numbers(chosen([*found, again], FID, 2)) == [1, 2]
    assert numbers(chosen(found, FID, 9)) == [1, 2, 0]


def test_of_two_metrics_the_front_is_chosen_from_its_ends_inwards_and_then_the_next() -> None:
    objective = Objective.of("fid", "recall")
    front = [trial(i, fid=10.0 + i, recall=0.1 + 0.01 * i) for i in range(9)] + [trial(9, fid=20.0, recall=0.5)]
    behind = [trial(20, fid=21.0, recall=0.4), trial(21, fid=30.0, recall=0.45), trial(22, fid=31.0, recall=0.3)]
    assert numbers(chosen(behind + front, objective, 1)) == [0]
    assert numbers(chosen(behind + front, objective, 2)) == [0, 9]
    assert numbers(chosen(behind + front, objective, 3)) == [0, 9, 8]  # (18, 0.18) is farther from both than the rest
    assert numbers(chosen(behind + front, objective, 12))[-2:] == [20, 21]
    assert 22 not in numbers(chosen(behind + front, objective, 12))  # 20 dominates it


def candidate(name: str, *fids: float, recall: float = 0.9, failures: int = 0) -> Candidate:
    scores = [{"fid": fid, "recall": recall} for fid in fids]
    return Candidate(
        name=name,
        values={},
        seeds=list(range(len(fids))),
        scores=scores,
        estimates=estimates(scores, 0.95),
        feasible=recall >= 0.5,
        folders=[],
        keys=[],
        failures=["it diverged"] * failures,
    )


def ranks(*candidates: Candidate, objective: Objective = RECALL) -> list[str]:
    return [each.name for each in ranked(candidates, objective)]


def test_the_winner_has_the_best_mean_within_the_bounds() -> None:
    solid, lucky = candidate("solid", 26.0, 27.0, 28.0), candidate("lucky", 20.0, 25.0, 209.0)
    steady = candidate("steady", 28.1, 28.1, 28.1)  # its interval ends below that of "solid", its mean is worse
    collapsed = candidate("collapsed", 10.0, 10.0, 10.0, recall=0.1)
    worse = candidate("worse", 5.0, 5.0, 5.0, recall=0.05)
    assert ranks(worse, candidate("none", failures=3), collapsed, lucky, steady, solid) == [
        "solid", "steady", "lucky", "collapsed", "worse", "none"
    ]  # fmt: skip
    assert ranks(collapsed, solid, objective=FID) == ["collapsed", "solid"]
    assert ranks(candidate("a", 0.2), candidate("b", 0.1), objective=Objective.of("recall")) == ["a", "b"]


def test_a_seed_that_failed_counts_as_the_worst_score_of_any() -> None:
    solid, fragile = candidate("solid", 26.0, 27.0), candidate("fragile", 20.0, failures=1)
    defaults = candidate("defaults", 524.0, 530.0)
    assert ranks(fragile, defaults, solid) == ["solid", "fragile", "defaults"]
    assert ranks(fragile, candidate("broken", inf, 20.0)) == ["fragile", "broken"]


def test_the_table_shows_intervals_and_what_speaks_against_a_configuration() -> None:
    found = [candidate("solid", 26.0, 27.0, 28.0), candidate("collapsed", 10.0, 10.0, recall=0.1, failures=1)]
    bounds, floor = ["recall >= 0.5"], {"fid": 4.5, "recall": 0.916}
    printed = Console(width=200, record=True, file=StringIO())
    printed.print(confirmation_table(Confirmation("fid", None, 3, 5, 0.95, bounds, floor, found)))
    text = printed.export_text()
    real, solid, collapsed = text.splitlines()[-3:]
    assert text.startswith("Confirmed on 3 fresh seeds, 5 draws each")
    assert real.split() == ["floor:", "real", "data", "4.5", "0.916"]
    assert solid.split("  ")[0] == "solid"
    assert "27 ± 1" in solid
    assert "24.5 to 29.5" in solid  # 27 ± 4.3027 / sqrt(3)
    assert "3 of 3" in solid
    assert "2 of 3" in collapsed
    assert "outside recall >= 0.5; it diverged" in collapsed


@pytest.fixture
def kept(tmp_path: Path, toy: Callable[..., Pipeline], toy_setup: Setup) -> Path:
    """A folder with a generator as a training leaves it."""
    run = Training(toy(), 3, tmp_path, toy_setup)
    save_generator(tmp_path, run.generator.networks, run.card)
    return tmp_path


def test_draws_are_independent_the_same_again_and_scored_once(
    kept: Path, toy_setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, scored = ["emd", "coverage"], []

    def counting(generator: Generator, shared: Setup, names: list[str], draws: range, purpose: str) -> list[Any]:
        scored.extend((index, purpose) for index in draws)
        return drawn(generator, shared, names, draws, purpose)

    monkeypatch.setattr(evidence, "drawn", counting)
    first = remembered(kept, toy_setup, names, 3)
    assert len({score["emd"] for score in first}) == 3
    assert remembered(kept, toy_setup, names, 3) == first
    assert scored == [(0, "confirm"), (1, "confirm"), (2, "confirm")]
    more = remembered(kept, toy_setup, names, 5)
    assert more[:3] == first
    assert len(scored) == 5
    assert remembered(kept, toy_setup, names, 2) == first[:2]
    remembered(kept, toy_setup, ["emd"], 1)
    assert len(scored) == 6  # other metrics, other scores


def test_other_weights_are_scored_anew(kept: Path, toy_setup: Setup, toy: Callable[..., Pipeline]) -> None:
    before = remembered(kept, toy_setup, ["emd"], 2)
    run = Training(toy(), 4, kept, toy_setup)
    save_generator(kept, run.generator.networks, run.card)
    assert remembered(kept, toy_setup, ["emd"], 2) != before


def test_one_noise_for_all_generators_and_another_for_another_purpose(
    toy: Callable[..., Pipeline], toy_setup: Setup, tmp_path: Path
) -> None:
    one = Training(toy(), 3, tmp_path, toy_setup).generator
    again, other = (drawn(one, toy_setup, ["emd"], [0], purpose) for purpose in ("confirm", "promote"))
    assert drawn(one, toy_setup, ["emd"], [0, 1], "confirm")[:1] == again != other


def test_a_translator_draws_nothing(game_in_small: Callable[..., Pipeline], tmp_path: Path) -> None:
    from saddlepoint.training.setup import setup

    pipeline = game_in_small("cyclegan")
    shared = setup(pipeline)
    scores = drawn(Training(pipeline, 0, tmp_path, shared).generator, shared, ["cycle_l1"], range(3), "confirm")
    assert len(scores) == 3
    assert scores[0] == scores[2]
    assert torch.isfinite(torch.tensor(scores[0]["cycle_l1"]))

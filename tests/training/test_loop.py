"""The loop: when it reports, what it reports, which generator it keeps, and that strange noise judges it."""

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from saddlepoint.generator import Generator, load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.training import look
from saddlepoint.training.loop import Report, train
from saddlepoint.training.sentinel import Diverged
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import CHECKPOINT, Training

Toy = Callable[..., Pipeline]


def reports(pipeline: Pipeline, folder: Path, shared: Setup, seed: int = 0) -> list[Report]:
    return list(train(pipeline, seed=seed, folder=folder, shared=shared))


@pytest.mark.parametrize(("rounds", "every", "expected"), [(12, 4, [4, 8, 12]), (10, 4, [4, 8, 10]), (3, 4, [3])])
def test_it_reports_at_every_evaluation_at_the_end_and_once_more(
    rounds: int, every: int, expected: list[int], toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    values = {"training.rounds": rounds, "training.evaluate_every": every}
    told = reports(toy(values), tmp_path, toy_setup)
    assert [report.round for report in told] == [*expected, rounds]
    assert [report.final for report in told] == [False] * len(expected) + [True]
    logged = [round for report in told for round, _ in report.trace]
    assert logged == sorted({*range(3, rounds + 1, 3), rounds})  # log_every is 3; each entry once
    seconds = [report.seconds for report in told]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


@pytest.mark.parametrize(("metric", "best"), [("emd", min), ("coverage", max)])
def test_the_kept_generator_is_the_best_of_all_evaluations(
    metric: str, best: Callable[..., float], toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    values = {"training.rounds": 40, "lr_generator": 2e-2, "objective.metric": metric}
    pipeline = toy(values)
    told = reports(pipeline, tmp_path, toy_setup)
    scores = {report.round: report.metrics[metric] for report in told if not report.final}
    assert len(set(scores.values())) > 5
    chosen = best(scores.values())
    assert scores[told[-1].best_round] == chosen
    assert told[-1].best_round not in (4, 40)  # neither the first nor the last, or this test shows nothing
    kept = load_generator(tmp_path)
    other = Training(pipeline, 0, tmp_path / "other", toy_setup)
    choosing, final = (other.subject(purpose, kept) for purpose in ("score", "final"))
    assert toy_setup.scorer.score(choosing, [metric])[metric] == chosen
    assert toy_setup.scorer.score(final) == told[-1].metrics


def test_the_final_score_is_on_noise_that_did_not_choose(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    told = reports(toy(), tmp_path, toy_setup)
    final = told[-1].metrics
    assert set(final) == set(toy_setup.scorer.metrics)
    assert final["emd"] != min(report.metrics["emd"] for report in told[:-1])


def test_costly_metrics_run_at_the_end_and_where_they_are_the_objective(
    toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    *evaluations, final = reports(toy({"objective.metric": "reverse_kl"}), tmp_path / "a", toy_setup)
    assert not any("emd" in report.metrics for report in evaluations)
    assert "emd" in final.metrics
    *evaluations, final = reports(toy({"objective.metric": "emd"}), tmp_path / "b", toy_setup)
    assert all("emd" in report.metrics for report in evaluations)


def test_a_seed_repeats_and_another_differs(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    def told(name: str, seed: int) -> list[object]:
        told = reports(toy(), tmp_path / name, toy_setup, seed)
        return [(report.metrics, report.trace, report.pictures) for report in told]

    first, again, other = told("a", 0), told("b", 0), told("c", 1)
    assert first == again
    assert all(a != c for a, c in zip(first, other, strict=True))


def test_pictures_come_with_every_evaluation_from_the_same_noise(
    toy: Toy, toy_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[torch.Tensor] = []

    def keep(samples: torch.Tensor, data: torch.Tensor, labels: None) -> bytes:
        looks.append(samples)
        return b"PNG"

    def noise(generator: Generator, z: torch.Tensor, labels: None = None) -> torch.Tensor:
        return z[:, :2]

    monkeypatch.setattr(look, "picture", keep)
    monkeypatch.setattr(Generator, "__call__", noise)  # it shows which noise it was given
    for seed in (0, 1):  # whatever the seed: so that the pictures of different trials can be compared
        told = list(islice(train(toy(), seed=seed, folder=tmp_path / str(seed), shared=toy_setup), 3))
        assert [report.pictures for report in told] == [{"samples": b"PNG"}] * 3
    assert len(looks) == 6
    assert all(torch.equal(each, looks[0]) for each in looks)
    assert len(torch.unique(looks[0], dim=0)) == 2000


def test_the_final_report_has_no_picture_and_the_others_have_a_png(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    *evaluations, final = reports(toy(), tmp_path, toy_setup)
    assert final.pictures == {}
    assert all(report.pictures["samples"].startswith(b"\x89PNG") for report in evaluations)


def test_an_objective_that_is_no_number_ends_the_run(
    toy: Toy, toy_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = toy_setup.scorer.score
    monkeypatch.setattr(toy_setup.scorer, "score", lambda *args: score(*args) | {"emd": math.nan})
    with pytest.raises(Diverged, match=r"^emd is nan by round 4$"):
        reports(toy(), tmp_path, toy_setup)


def test_the_checkpoint_is_written_only_after_its_report_was_taken(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    training = train(toy(), seed=0, folder=tmp_path, shared=toy_setup)
    next(training)
    assert not (tmp_path / CHECKPOINT).exists()
    next(training)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["round"] == 4
    assert state["log"]["trace"] == []  # told, and not to be told again


def test_a_checkpoint_between_evaluations_keeps_what_was_not_told_yet(
    toy: Toy, toy_setup: Setup, tmp_path: Path
) -> None:
    pipeline = toy({"training.checkpoint_every": 3, "training.log_every": 2})
    next(train(pipeline, seed=0, folder=tmp_path, shared=toy_setup))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["round"] == 3
    assert [round for round, _ in state["log"]["trace"]] == [2]
    assert state["log"]["sums"].keys() == {"loss_critic", "loss_generator", "emd"}  # of round 3


def test_digits_with_the_shipped_pipeline(digits: Pipeline, digits_setup: Setup, tmp_path: Path) -> None:
    """With good rates it has left the blank image (FID 1304) after 200 rounds, and is far from the floor."""
    rates = {"lr_critic": 1.5e-3, "lr_generator": 1.5e-3, "clip": 0.04}
    pipeline = digits.with_values({**rates, "training.rounds": 200, "training.ema": 0.9})
    told = reports(pipeline, tmp_path, digits_setup)
    final, floor = told[-1].metrics, digits_setup.scorer.floor()
    assert set(final) == set(floor)
    assert 2 < floor["fid"] < 8
    assert 200 < final["fid"] < 700
    assert load_generator(tmp_path).sample(5).shape == (5, 1, 8, 8)
    (tmp_path / "look.png").write_bytes(told[0].pictures["samples"])
    with Image.open(tmp_path / "look.png") as picture:
        assert picture.size[0] == picture.size[1] > 200

"""The sentinel: what it stops, in which words, and what it leaves alone."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.training.sentinel import Diverged, Sentinel
from saddlepoint.training.setup import Setup

DATA = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
POINT = torch.full((50, 2), 0.7)


def narrow(share: float) -> torch.Tensor:
    """Samples whose spread is `share` of the data's."""
    return 5 + share * DATA


@pytest.mark.parametrize(("value", "word"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_no_number(value: float, word: str) -> None:
    with pytest.raises(Diverged) as stop:
        Sentinel({"samples": DATA}).see_logs(50, {"loss_generator": 0.3, "loss_critic": value})
    assert str(stop.value) == f"loss_critic is {word} by round 50"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number(value: float) -> None:
    weights = {"critic": [torch.ones(3)], "generator": [torch.ones(3), torch.tensor([1.0, value])]}
    with pytest.raises(Diverged) as stop:
        Sentinel({"samples": DATA}).see_weights(8, weights)
    assert str(stop.value) == "a weight of the generator is not finite at round 8"


def test_a_player_that_stands_still_between_two_looks() -> None:
    sentinel, critic, generator = Sentinel({"samples": DATA}), torch.ones(3), torch.ones(2)
    for round in (1, 2):
        generator = generator + 1e-6
        critic = critic - 2**-10 * torch.tensor([1.0, -1.0, 0.0])  # its sum stays, exactly
        sentinel.see_weights(round, {"critic": [critic], "generator": [generator]})
    with pytest.raises(Diverged) as stop:
        sentinel.see_weights(3, {"critic": [critic], "generator": [generator + 1e-6]})
    assert str(stop.value) == "the critic is frozen: not one weight moved up to round 3"


def test_samples_that_are_one_point_twice_in_a_row() -> None:
    sentinel = Sentinel({"samples": DATA})
    sentinel.see_samples(10, {"samples": POINT})
    with pytest.raises(Diverged) as stop:
        sentinel.see_samples(20, {"samples": narrow(5e-4)})
    assert str(stop.value) == "the samples collapsed to a point at round 20: 5.0e-04 of the data's spread"


def test_one_collapse_that_passes_is_forgiven_and_few_modes_are_no_point() -> None:
    sentinel = Sentinel({"samples": DATA})
    for round in range(10):
        sentinel.see_samples(round, {"samples": POINT if round % 2 else narrow(2e-3)})


def test_samples_that_are_no_numbers() -> None:
    samples = DATA.clone()
    samples[3, 1] = math.nan
    with pytest.raises(Diverged, match="the samples are not finite at round 4"):
        Sentinel({"samples": DATA}).see_samples(4, {"samples": samples})


def test_its_memory_survives_a_checkpoint() -> None:
    before, weights = Sentinel({"samples": DATA}), {"critic": [torch.ones(3)]}
    before.see_weights(1, weights)
    before.see_samples(1, {"samples": POINT})
    after = Sentinel({"samples": DATA})
    after.load_state_dict(before.state_dict())
    with pytest.raises(Diverged, match="critic is frozen"):
        after.see_weights(2, weights)
    with pytest.raises(Diverged, match="collapsed"):
        after.see_samples(2, {"samples": POINT})


Toy = Callable[..., Pipeline]


def last_round(pipeline: Pipeline, folder: Path, shared: Setup) -> int:
    return [report.round for report in train(pipeline, seed=0, folder=folder, shared=shared)][-1]


def test_a_healthy_run_is_left_alone(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    pipeline = toy({"training.rounds": 60, "training.evaluate_every": 3})
    assert last_round(pipeline, tmp_path, toy_setup) == 60


def test_a_critic_pressed_into_its_corners_still_moves(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    """Steps far larger than the clip: nearly all weights sit at +-c. A bad choice, but no frozen player."""
    values = {"lr_critic": 1e-2, "clip": 3e-3, "lr_generator": 1e-5, "training.rounds": 60}
    assert last_round(toy({**values, "training.evaluate_every": 3}), tmp_path, toy_setup) == 60


def test_a_run_that_explodes_is_stopped_in_words(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    pipeline = toy({"lr_generator": 1e38, "training.rounds": 60})
    with pytest.raises(Diverged, match=r"is (nan|inf|-inf) by round \d+$|not finite at round \d+$"):
        last_round(pipeline, tmp_path, toy_setup)


def test_a_run_whose_generator_stands_still_is_stopped(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    pipeline = toy({"lr_generator": 1e-30, "networks.generator.norm": "none"})
    with pytest.raises(Diverged, match="the generator is frozen: not one weight moved up to round 8"):
        last_round(pipeline, tmp_path, toy_setup)

"""`saddle doctor --parity`: what each option for speed does to the losses."""

from collections.abc import Callable
from typing import Any

import pytest

from saddlepoint.errors import UserError
from saddlepoint.spec import Pipeline
from saddlepoint.workflows import parity as module
from saddlepoint.workflows.parity import OPTIONS, Parity, parity

Small = Callable[..., Pipeline]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute; one test below does it."""
    monkeypatch.setattr(module, "OPTIONS", {k: v for k, v in OPTIONS.items() if k != "compile: default"})


def by_option(found: list[Parity]) -> dict[str, Parity]:
    return {each.option: each for each in found}


def test_every_option_is_played_from_the_same_start(uncompiled: None, game_in_small: Small) -> None:
    said: list[str] = []
    found = by_option(parity(game_in_small("cyclegan"), 3, said.append))
    assert list(found) == said == [name for name in OPTIONS if name != "compile: default"]
    eager = found["eager"]
    assert set(eager.losses) == {"generators", "D_X", "D_Y"}
    assert (eager.first, eager.worst) == (None, None)
    for name in ("accumulate: 2", "channels_last: true"):
        assert found[name].first is not None
        assert found[name].first < 1e-5, name  # rounding, in the first round
    half = found["precision: bfloat16"]
    assert half.first is not None
    assert 1e-5 < half.first < 0.1  # 8 bits of mantissa: more than rounding, and still the same game
    assert half.worst is not None
    assert half.worst >= half.first
    for name in ("precision: tf32", "compile: cuda_graphs"):
        assert found[name] == Parity(name, {}, note="needs an NVIDIA GPU")


def test_options_are_compared_whatever_the_pipeline_itself_asks_for(uncompiled: None, toy: Any) -> None:
    plain = by_option(parity(toy(), 2))
    asked = by_option(parity(toy({"training.precision": "bfloat16", "training.accumulate": 4}), 2))
    assert asked["eager"].losses == plain["eager"].losses
    assert asked["precision: bfloat16"].losses == plain["precision: bfloat16"].losses


def test_an_option_that_cannot_be_played_says_why(uncompiled: None, toy: Any) -> None:
    found = by_option(parity(toy({"training.batch_size": 31}), 2))
    assert "training.batch_size: 31 should be a multiple of 2" in found["accumulate: 2"].note
    assert found["accumulate: 2"].losses == {}
    assert found["precision: bfloat16"].losses


def test_no_rounds_are_nothing_to_compare(toy: Any) -> None:
    with pytest.raises(UserError, match="--rounds: 0 should be at least 1"):
        parity(toy(), 0)


@pytest.mark.parametrize("options", [("--rounds", "3"), ("--set", "seed=1")])
def test_what_belongs_to_parity_is_not_ignored_without_it(
    options: tuple[str, ...], saddle: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert saddle("doctor", *options) == 2
    assert capsys.readouterr() == ("", f"saddle: {options[0]}: goes with --parity PIPELINE\n")


@pytest.mark.slow  # compiles
def test_compiled_it_is_the_same_game(monkeypatch: pytest.MonkeyPatch, toy: Any) -> None:
    monkeypatch.setattr(module, "OPTIONS", {name: OPTIONS[name] for name in ("eager", "compile: default")})
    _, compiled = parity(toy(), 3)
    assert compiled.note == ""
    assert compiled.first is not None
    assert compiled.first < 1e-5

"""The commands that look at, use and make single things, as a user calls them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from saddlepoint import cli
from saddlepoint.errors import UserError
from saddlepoint.metrics import Objective
from saddlepoint.metrics.catalogue import METRICS
from saddlepoint.search.pruners import make_pruner, rungs
from saddlepoint.search.samplers import PerTrial
from saddlepoint.spec import Pipeline, SearchSpec
from saddlepoint.tracking.query import history, sweeps
from saddlepoint.workflows.run import run

from .conftest import SMALL

Small = Callable[..., Pipeline]
Said = Callable[..., Any]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """`said("runs")` is what `saddle runs --json` prints, read."""

    def call(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["saddle", *arguments, "--json"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


SETTINGS = [part for change in SMALL for part in ("--set", change)]


def test_train_is_one_tracked_run_with_a_generator(workplace: Path, said: Said) -> None:
    done = said("train", "digits-wgan", *SETTINGS, "--seed", "3", "--out", "one")
    [tracked] = [run for run in sweeps(None) if run.key == "train"]

    assert Path(done["folder"]) == workplace / "one"
    assert (workplace / "one" / "generator.safetensors").exists()
    assert tracked.status == "FINISHED"
    assert tracked.params["seed"] == "3"
    assert tracked.metrics["final/fid"] == done["scores"]["fid"]
    assert [step for step, _ in history(None, tracked.run_id, "fid")] == [4, 8, 12]
    assert done["floor"]["fid"] == pytest.approx(float(tracked.tags["saddle.floor.fid"]), rel=1e-3)


def test_train_repeated_gives_the_same_and_goes_into_the_same_run(workplace: Path, said: Said) -> None:
    first = said("train", "digits-wgan", *SETTINGS)
    second = said("train", "digits-wgan", *SETTINGS)
    assert second["scores"] == first["scores"]
    assert len(sweeps(None)) == 1


def test_a_training_that_diverges_fails_with_its_reason(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ("--set", "game.hyperparameters.lr_generator=1e30")
    monkeypatch.setattr(sys, "argv", ["saddle", "train", "digits-wgan", *SETTINGS, *wild])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("saddle: the training diverged: ")
    assert error.count("\n") == 1
    [tracked] = sweeps(None)
    assert tracked.status == "FAILED"
    assert tracked.tags["saddle.outcome"] == "diverged"


def test_looking_at_a_finished_run(workplace: Path, small: Small, said: Said) -> None:
    done = run(small())
    [listed] = said("runs")
    shown = said("show", "digits-wgan")
    scored = said("evaluate", "models:/digits-generator@champion", "--seed", "7")
    drawn = said("generate", "models:/digits-generator@champion", "-n", "9", "--out", "a.png")
    confirmed = said("confirm", "digits-wgan")

    assert (listed["name"], listed["status"]) == ("digits-wgan", "FINISHED")
    assert [trial["state"] for trial in shown] == [trial.state for trial in done.trials]
    assert scored["protocol"]["samples"] == 898
    assert scored["scores"]["fid"] > 10 * scored["floor"]["fid"]  # twelve rounds make no digits
    assert drawn == [str(workplace / "a.png")]
    assert [c["name"] for c in confirmed["candidates"]] == [c.name for c in done.confirmation.candidates]


def test_evaluate_refuses_data_of_another_shape(workplace: Path, small: Small) -> None:
    from saddlepoint import evaluate

    run(small("search.trials=1", "confirm.seeds=1"))
    with pytest.raises(UserError, match=r"'ring' has samples of shape \(2,\), but .* generates \(1, 8, 8\)"):
        evaluate("models:/digits-generator@champion", dataset="ring")


def test_the_vocabulary_names_every_sampler_and_pruner_and_no_other() -> None:
    for name in get_args(SearchSpec.model_fields["sampler"].annotation):
        PerTrial(name, seed=0)
    for name in get_args(SearchSpec.model_fields["pruner"].annotation):
        make_pruner(name, objective=Objective.of("fid"), rounds=9)
    with pytest.raises(UserError, match="tpe"):
        PerTrial("none of them", seed=0)


def test_rungs_are_counted_and_not_rounded() -> None:
    assert rungs("successive_halving", rounds=243, first=1) == [1, 3, 9, 27, 81]  # log(243) / log(3) is 4.99...
    assert rungs("successive_halving", rounds=2000, first=400) == [400, 1200]
    assert rungs("successive_halving", rounds=900) == [34, 102, 306]
    assert rungs("none", rounds=900) == []


def test_better_is_lower_for_fid_and_higher_for_recall_and_never_for_nan() -> None:
    fid, recall = METRICS["fid"], METRICS["recall"]
    assert fid.is_better(3.0, 4.0)
    assert not fid.is_better(4.0, 3.0)
    assert recall.is_better(0.9, 0.8)
    assert not recall.is_better(0.8, 0.9)
    assert not fid.is_better(float("nan"), 4.0)
    assert sorted([5.0, 2.0, 9.0], key=fid.badness) == [2.0, 5.0, 9.0]
    assert sorted([0.5, 0.2, 0.9], key=recall.badness) == [0.9, 0.5, 0.2]

"""Every shipped pipeline that a CPU can play, cut short: from the sweep to a model that another process uses."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saddlepoint import data
from saddlepoint.spec import Pipeline, shipped
from saddlepoint.workflows.run import run

CPU = sorted(name for name in shipped("pipelines") if name.startswith(("ring", "grid", "toy", "digits")))
SHORT = (
    "training.rounds=4",
    "training.evaluate_every=2",
    "training.log_every=2",
    "training.device=cpu",
    "objective.samples=100",
    "search.trials=2",
    "search.min_rounds=2",
    "confirm.top=1",
    "confirm.seeds=1",
)
OF_FOUR = ["search.population.members=4", "search.population.every=2"]
COMMAND = [sys.executable, "-m", "saddlepoint"]


def used(model: str, pipeline: Pipeline, folder: Path) -> np.ndarray:
    """What `saddle generate` or `saddle translate` makes of the model, in a process of its own."""
    if pipeline.game.name == "cyclegan":
        np.savez(folder / "in.npz", samples=data.load("digits").heldout[:5].numpy())
        arguments = ["translate", model, "in.npz", "--out", "out.npz"]
    else:
        arguments = ["generate", model, "-n", "5", "--out", "out.npz"]
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as written:
        return written["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU)
def test_from_the_sweep_to_a_model_in_use(name: str, workplace: Path) -> None:
    peopled = Pipeline.load(name).search.population is not None  # type: ignore[union-attr]
    pipeline = Pipeline.load(
        name, [change for change in SHORT if "search." not in change] + OF_FOUR if peopled else SHORT
    )
    done = run(pipeline)
    assert len(done.trials) == (8 if peopled else 2)
    assert {trial.state for trial in done.trials} <= {"complete", "pruned"}
    assert done.promotion is not None
    assert done.promotion.moved
    assert done.picture is not None
    assert done.picture.read_bytes().startswith(b"\x89PNG")
    samples = used(done.promotion.uri, pipeline, workplace)
    assert len(samples) == 5
    assert np.isfinite(samples).all()
    assert np.ptp(samples, axis=0).max() > 0  # five different ones


@pytest.mark.parametrize("name", shipped("pipelines"))
def test_every_shipped_pipeline_reads_and_its_published_defaults_are_in_its_space(name: str) -> None:
    pipeline = Pipeline.load(name)
    assert pipeline.name == name
    assert pipeline.search is not None
    assert pipeline.promote is not None
    assert pipeline.with_values(pipeline.search.space.defaults()).search is None


def test_no_two_pipelines_promote_the_same_model() -> None:
    models = [Pipeline.load(name).promote for name in shipped("pipelines")]
    assert len({target.model for target in models if target}) == len(models)


@pytest.mark.slow
def test_the_page_about_ones_own_game_does_what_it_says(workplace: Path, saddle: Callable[..., int]) -> None:
    """The files of the page, byte by byte, and its commands, cut short."""
    page = (Path(__file__).parents[2] / "docs" / "own_game.md").read_text()
    [code], [pipeline] = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yaml"))
    [commands] = re.findall(r"```\n(saddle .*?)```", page, re.DOTALL)
    (workplace / "lsgan.py").write_text(code)
    (workplace / "lsgan.yaml").write_text(pipeline)
    assert len(code.splitlines()) <= 45  # a game is short
    for line in commands.splitlines():
        program, *arguments = line.split()
        assert program == "saddle"
        cut = [part for change in SHORT for part in ("--set", change)] if "lsgan.yaml" in arguments else []
        assert saddle(*arguments, *cut) == 0, line
    assert (workplace / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert (workplace / "sweeps" / "digits-lsgan" / "champion.png").exists()
    sys.modules.pop("lsgan", None)

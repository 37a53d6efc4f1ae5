"""The harness of `make chaos` in short: one kill of each kind, and nothing is lost. And the harness sees what is."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saddlepoint.spec import Pipeline
from saddlepoint.workflows.sweep import sweep

SEED = 3


@pytest.fixture(scope="module")
def program(benchmark: Callable[..., ModuleType]) -> ModuleType:
    return benchmark("chaos")


@pytest.mark.slow
def test_each_kind_of_kill_once_and_nothing_is_lost(program: ModuleType, tmp_path: Path) -> None:
    cut = ("training.rounds=120", "training.evaluate_every=20", "search.trials=6")
    scenario = program.Scenario(program.SIDE_BY_SIDE.name, (*program.SIDE_BY_SIDE.changes, *cut))
    story = program.chaos(6, SEED, (scenario,), tmp_path / "chaos")

    assert not story.losses, str(story.losses)
    assert {each.kind for each in story.struck} == {"driver", "everything", "worker", "gcs", "raylet", "server"}
    assert story.commands >= 5  # four of these kill the command


def test_a_plan_is_a_matter_of_its_seed_and_takes_every_kind_in_turn(program: ModuleType) -> None:
    plan = program.plan(SEED, 30)
    assert plan == program.plan(SEED, 30)
    assert plan != program.plan(SEED + 1, 30)
    assert set(Counter(kill.kind for kill in plan).values()) == {5}
    kinds = [kill.kind for kill in plan]
    assert not any(kinds[i : i + 3] == ["worker"] * 3 for i in range(28))


def test_the_comparison_sees_what_is_lost_doubled_and_left(
    program: ModuleType, workplace: Path, small: Callable[..., Pipeline]
) -> None:
    sweep(small("search.trials=1"))
    evidence: Any = sys.modules["evidence"]
    whole = evidence.gather(workplace, "digits-wgan")
    folder = workplace / "sweeps" / "digits-wgan"
    assert not evidence.compare(whole, whole)
    assert evidence.leftovers(folder) == []
    assert len(whole.points) > 20
    assert any("images/" in path for _, path, _ in whole.files)

    [point] = [point for point in whole.points if point[:3] == ("trial-0000", "fid", 8)]
    without = evidence.compare(replace(whole, points=whole.points - Counter([point])), whole)
    assert (len(without.lost), len(without.doubled)) == (1, 0)
    twice = evidence.compare(replace(whole, points=whole.points + Counter([point])), whole)
    assert (len(twice.lost), len(twice.doubled)) == (0, 1)
    other = Counter([(*point[:3], float.hex(float.fromhex(point[3]) * (1 + 2**-52)))])
    moved = evidence.compare(replace(whole, points=whole.points - Counter([point]) + other), whole)
    assert (len(moved.lost), len(moved.doubled)) == (1, 1)
    assert evidence.compare(replace(whole, running=["sweep"]), whole)
    trial = whole.trials["trial-0000"]
    [difference] = evidence.compare(replace(whole, trials={"trial-0000": trial | {"seed": 1}}), whole).other
    assert difference.startswith("trial-0000.seed: 1 instead of ")

    (folder / "trials" / "0000" / ".checkpoint.pt.1a2b3c4d").touch()
    (folder / "trials" / ".gone-0003-0123abcd").mkdir()
    assert len(evidence.leftovers(folder)) == 2

"""The plan: every structure that the space reaches is built, and what will not fit is said before anything starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saddlepoint.errors import UserError
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.workflows import plan as plan_room
from saddlepoint.workflows.footprint import trial_bytes, written
from saddlepoint.workflows.plan import plan
from saddlepoint.workflows.structures import reachable, structures

Small = Callable[..., Pipeline]
SPACE = """
game: wgan
parameters:
  clip:                        {type: log_float, low: 0.003, high: 0.3, default: 0.01}
  n_critic:                    {type: choice, choices: [1, 2, 5], default: 5}
  training.batch_size:         {type: int, low: 8, high: 32, default: 16}
  networks.critic.widths:      {type: fixed, value: [16]}
  networks.generator.norm:     {type: choice, choices: [none, batch], default: none, when: {n_critic: [1]}}
"""


@pytest.fixture
def shaped(workplace: Path, small: Small) -> Callable[..., Pipeline]:
    (workplace / "shaped.yaml").write_text(SPACE)
    return lambda *changes: small("search.space=shaped.yaml", *changes)


def test_each_structure_is_found_once_whatever_its_numbers_are(shaped: Small) -> None:
    found = {
        (trial.structure().n_critic, trial.training.batch_size, trial.networks["generator"].options.get("norm"))
        for _, trial in structures(shaped())
    }
    # the file's own (n_critic 2, batches of 32); 3 n_critic x 2 ends of the batch size, norm where n_critic is 1;
    # and the defaults, whose batch size lies between the ends
    ends = {(n, size, None) for n in (2, 5) for size in (8, 32)}
    ends |= {(1, size, norm) for size in (8, 32) for norm in ("none", "batch")}
    assert found == ends | {(2, 32, None), (5, 16, None)}
    assert len(structures(shaped())) == len(found)  # clip makes none


def test_too_many_combinations_are_tried_one_end_at_a_time(shaped: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = shaped()
    assert pipeline.search is not None
    monkeypatch.setattr("saddlepoint.workflows.structures.MOST", 3)
    assert list(reachable(pipeline, pipeline.search.space)) == pipeline.search.space.corners()


def test_a_structure_that_does_not_fit_is_found_before_anything_starts(workplace: Path, small: Small) -> None:
    (workplace / "large.yaml").write_text(
        "game: wgan\nparameters:\n  training.batch_size: {type: choice, choices: [32, 5000], default: 32}\n"
    )
    with pytest.raises(UserError, match=r"search\.space: with \{'training\.batch_size': 5000\}: .*5000 is larger"):
        plan(small("search.space=large.yaml"))
    assert not (workplace / "sweeps").exists()


def test_disk_is_that_of_the_largest_structure(workplace: Path, small: Small) -> None:
    (workplace / "wide.yaml").write_text(
        "game: wgan\nparameters:\n"
        "  networks.generator.norm: {type: choice, choices: [none, batch], default: none}\n"
        "  training.ema: {type: choice, choices: [0.0, 0.9], default: 0.0}\n"
    )
    pipeline = small("search.space=wide.yaml")
    largest = pipeline.with_values({"networks.generator.norm": "batch", "training.ema": 0.9})
    assert trial_bytes(pipeline, setup(pipeline)) == pytest.approx(2 * written(largest, setup(pipeline)), rel=0.02)
    assert trial_bytes(pipeline, setup(pipeline)) > 1.1 * 2 * written(
        pipeline.with_values({"training.ema": 0.0}), setup(pipeline)
    )


def test_what_will_not_fit_is_a_warning(small: Small, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_room, "free_megabytes", lambda device, gpus: 1e6)
    assert plan(small()).warnings == []
    monkeypatch.setattr(plan_room, "free_megabytes", lambda device, gpus: 1.0)
    found = plan(small("search.disk_gb=1e-6", "search.budget.rounds=10", "search.budget.gpu_hours=1"))
    memory, disk, rounds, hours = found.warnings
    assert memory.startswith("memory: ")
    assert memory.endswith("1 fit: resources.concurrency=1")
    assert disk == f"search.disk_gb: 1e-06 GB hold 0 live trials, and {found.at_once} would run"
    assert rounds.startswith("search.budget.rounds: 10 end the search before its 4 trials")
    assert "resources.gpus is 0" in hours


@pytest.mark.parametrize(
    ("changes", "rungs", "expected"),
    [
        # 9 trials: 9 to round 12, a third of them to 36, one of these to 108
        (("search.trials=9", "search.min_rounds=12"), {12: 9, 36: 3}, 9 * 12 + 3 * 24 + 72),
        (("search.trials=9", "search.pruner=none"), {}, 9 * 108),
        (("search.trials=2", "search.min_rounds=108"), {}, 2 * 108),
    ],
)
def test_the_rounds_that_halving_leaves(
    changes: tuple[str, ...], rungs: dict[int, int], expected: int, workplace: Path, small: Small
) -> None:
    found = plan(small("training.rounds=108", "training.evaluate_every=12", *changes))
    assert found.rungs == rungs
    assert found.expected_rounds == expected
    longest = found.longest_seconds / found.trial_seconds * 108
    at_once = found.at_once
    assert longest == pytest.approx((-(-found.trials // at_once) + -(-found.retrainings // at_once)) * 108, rel=1e-6)

"""A pipeline as a sweep: its space, the trials that derive from it, and when two sweeps are the same one."""

from collections.abc import Callable
from typing import Any

import pytest

from saddlepoint.spec import Pipeline

Content = dict[str, Any]
Changed = Callable[[str, Any], Content]
Refusal = Callable[[Callable[[], object]], str]
Toy = Callable[..., Pipeline]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "parameters/cilp",
            {"type": "fixed", "value": 1},
            "search.space.parameters.cilp: 'cilp' is not known; did you mean 'clip'?",
        ),
        (
            "parameters/clip/low",
            0.5,
            "pipeline: search.space.parameters.clip.low: 0.5 should be less than high, 0.2 (for one "
            "value alone: type fixed)",
        ),
        (
            "parameters/clip/low",
            0,
            "pipeline: search.space.parameters.clip.low: 0.0 should be greater than 0 in a log range",
        ),
        (
            "parameters/clip/default",
            0.5,
            "pipeline: search.space.parameters.clip.default: 0.5 should lie within 0.01 to 0.2; "
            "extend the range to hold it",
        ),
        (
            "parameters/n_critic/choices",
            [0, 2],
            "search.space.parameters: with {'clip': 0.1, 'n_critic': 0, 'training.batch_size': 32}: "
            "game.structure: n_critic: 0 should be greater than or equal to 1",
        ),
        (
            "parameters/training.batch_sise",
            {"type": "fixed", "value": 8},
            "search.space.parameters: with {'clip': 0.1, 'n_critic': 2, 'training.batch_size': 32, "
            "'training.batch_sise': 8}: training: 'batch_sise' is not known; did you mean "
            "'batch_size'?",
        ),
        (
            "parameters/resources.cpus",
            {"type": "fixed", "value": 2},
            "search.space.parameters.resources.cpus: cannot be searched; a path leads into game, networks or training",
        ),
        ("game", "gan", "search.space: is for the game 'gan', but game.name is 'wgan'"),
    ],
)
def test_a_space_that_cannot_be_searched(
    path: str, value: Any, message: str, changed: Changed, refusal: Refusal
) -> None:
    assert refusal(lambda: Pipeline.parse(changed(f"search/space/{path}", value))) == message


def test_a_space_that_is_not_there(changed: Changed, refusal: Refusal) -> None:
    for name, message in (
        ("wgam", "search.space: 'wgam' is not known; did you mean 'wgan'?"),
        ("here/none.yaml", "search.space: the file 'here/none.yaml' does not exist"),
    ):
        assert refusal(lambda name=name: Pipeline.parse(changed("search/space", name))) == message


def test_a_trial_is_the_pipeline_with_other_values(toy_content: Content) -> None:
    pipeline = Pipeline.parse(toy_content)
    before = pipeline.content()
    trial = pipeline.with_values(
        {"clip": 0.05, "n_critic": 1, "training.batch_size": 16, "networks.generator.widths": [4]}
    )
    assert trial.hyperparameters().clip == 0.05
    assert trial.hyperparameters().lr_critic == pipeline.hyperparameters().lr_critic
    assert trial.structure().n_critic == 1
    assert trial.structure().z_dim == 4
    assert trial.training.batch_size == 16
    assert trial.training.rounds == 12
    assert trial.networks["generator"].options == {"widths": [4], "norm": "batch"}
    assert trial.search is None
    assert pipeline.content() == before
    assert Pipeline.parse(trial.content()) == trial


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clap": 1.0}, "search.space.parameters.clap: 'clap' is not known; did you mean 'clip'?"),
        ({"clip": -1.0}, "game.hyperparameters: clip: -1.0 should be greater than 0"),
        ({"training.rounds": 0}, "training.rounds: 0 should be greater than or equal to 1"),
        ({"game.structure.n_critic": 0}, "game.structure: n_critic: 0 should be greater than or equal to 1"),
    ],
)
def test_values_that_a_trial_cannot_take(values: Content, message: str, toy_content: Content, refusal: Refusal) -> None:
    assert refusal(lambda: Pipeline.parse(toy_content).with_values(values)) == message


def test_parameters_are_flat_and_complete(toy_content: Content) -> None:
    parameters = Pipeline.parse(toy_content).with_values({"clip": 0.05}).parameters()
    assert parameters == {
        "game": "wgan",
        "z_dim": 4,
        "n_critic": 2,
        "lr_critic": 2e-3,
        "lr_generator": 2e-3,
        "clip": 0.05,
        "seed": 0,
        "data.name": "ring",
        "data.std": 0.05,
        "data.train": 500,
        "data.heldout": 300,
        "networks.generator.factory": "mlp_generator",
        "networks.generator.widths": [16],
        "networks.generator.norm": "batch",
        "networks.critic.factory": "mlp_critic",
        "networks.critic.widths": [16],
        "training.rounds": 12,
        "training.batch_size": 32,
        "training.decay": "linear",
        "training.ema": 0.9,
        "training.evaluate_every": 4,
        "training.log_every": 3,
        "training.checkpoint_every": None,
        "training.device": "cpu",
        "training.precision": "float32",
        "training.channels_last": False,
        "training.compile": "none",
        "training.accumulate": 1,
        "objective.metric": "emd",
        "objective.second": None,
        "objective.constraints": {},
        "objective.samples": 100,
        "objective.features": "auto",
        "objective.feature_weights": None,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("search/trials", 500),
        ("search/ledger", "postgresql://somewhere/else"),
        ("search/budget", {"rounds": 1000, "hours": 0.5}),
        ("search/disk_gb", 3),
        ("confirm", {"top": 5, "seeds": 7}),
        ("promote", {"model": "rings"}),
        ("resources", {"cpus": 4, "concurrency": 2}),
        ("name", "another"),
        ("experiment", "another"),
        ("game/structure/n_critic", 2),  # as it is
    ],
)
def test_a_sweep_stays_itself_under(path: str, value: Any, toy_content: Content, changed: Changed) -> None:
    other = Pipeline.parse(changed(path, value))
    assert other.fingerprint() == Pipeline.parse(toy_content).fingerprint()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training/rounds", 13),
        ("training/batch_size", 33),
        ("training/ema", 0.8),
        ("data/std", 0.06),
        ("data/name", "grid"),
        ("game/hyperparameters/lr_critic", 3e-3),
        ("game/structure/z_dim", 5),
        ("networks/critic/widths", [17]),
        ("objective/metric", "reverse_kl"),
        ("objective/samples", 99),
        ("objective/second", "reverse_kl"),
        ("objective/constraints", {"reverse_kl": {"at_most": 1.0}}),
        ("search/seeds", 2),
        ("search/sampler", "random"),
        ("search/space/parameters/clip/high", 0.3),
        ("search", None),
        ("seed", 1),
    ],
)
def test_a_sweep_becomes_another_under(path: str, value: Any, toy_content: Content, changed: Changed) -> None:
    other = Pipeline.parse(changed(path, value))
    assert other.fingerprint() != Pipeline.parse(toy_content).fingerprint()


def test_a_default_that_is_written_down_changes_nothing(toy_content: Content, changed: Changed) -> None:
    del toy_content["game"]["hyperparameters"]["clip"]
    written = changed("game/hyperparameters/clip", 0.01)
    assert Pipeline.parse(written).fingerprint() == Pipeline.parse(toy_content).fingerprint()


def test_trials_with_equal_values_are_equal_and_others_are_not(toy: Toy) -> None:
    assert toy({"clip": 0.05}).fingerprint() == toy({"clip": 0.05}).fingerprint()
    assert toy({"clip": 0.05}).fingerprint() != toy({"clip": 0.06}).fingerprint()

"""From a pipeline to things: what cannot fit is said before a round is played; looking changes nothing."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from saddlepoint import networks
from saddlepoint.errors import UserError
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import (
    Setup,
    build_game,
    build_networks,
    choose_device,
    network_arguments,
    setup,
)
from saddlepoint.training.state import Training

Toy = Callable[..., Pipeline]


def refused(content: dict[str, Any], shared: Setup | None = None) -> str:
    """What `setup` or building the networks says against a pipeline."""
    pipeline = Pipeline.parse(content)
    with pytest.raises(UserError) as error:
        build_networks(pipeline, build_game(pipeline), shared or setup(pipeline))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_batch_larger_than_the_data(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Training(toy({"training.batch_size": 501}), 0, tmp_path, toy_setup)
    assert str(error.value).startswith("training.batch_size: 501 is larger than the training half of the data, 500")


def test_a_batch_of_one_where_batch_norm_needs_two(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    alone = {"training.batch_size": 1}
    with pytest.raises(UserError) as error:
        Training(toy(alone), 0, tmp_path, toy_setup)
    said = "training.batch_size: 1 does not suit networks.generator: ValueError: Expected more than 1 value"
    assert str(error.value).startswith(said)
    Training(toy({**alone, "networks.generator.norm": "none"}), 0, tmp_path, toy_setup).play()


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for asked in ("cuda", "cuda:1"):
        with pytest.raises(UserError) as error:
            choose_device(asked)
        expected = f"training.device: {asked!r} asked for, but torch sees no GPU here; use auto or cpu"
        assert str(error.value) == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="'cuda:2' asked for, but the last GPU here is cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"metric": "fid"}, "objective.metric: 'fid' is for data of kind image, not points"),
        ({"metric": "reverse_kl", "samples": 5}, "objective.samples: 5; reverse_kl here needs at least 8"),
        ({"metric": "emd", "samples": 301}, "objective.samples: 301; 'ring' allows 1 to 300"),
    ],
)
def test_a_score_that_cannot_be_had_is_known_before_training(
    objective: dict[str, Any], message: str, toy_content: dict[str, Any]
) -> None:
    toy_content["objective"] = objective
    assert refused(toy_content) == message


def test_a_network_for_other_data(toy_content: dict[str, Any], toy_setup: Setup) -> None:
    toy_content["networks"]["critic"] = {"factory": "dcgan_critic"}
    said = refused(toy_content, toy_setup)
    assert said == "networks.critic: dcgan works on square images of size 8, 16, 32, 64, 128; the data is 2"


OWN = """
import torch
from torch import nn

def flat():
    return nn.Linear(4, 3)

def narrow():
    return nn.Linear(5, 2)

def judge():
    return nn.Sequential(nn.Linear(7, 1), nn.Flatten(0))

def counting(sample_shape, n_critic=3):
    return nn.Sequential(nn.Linear(2, n_critic), nn.Linear(n_critic, 1), nn.Flatten(0))

class Noisy(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        return super().forward(x + torch.randn_like(x)).squeeze(1)

class Lists(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)

    def forward(self, x):
        raise KeyError("two\\nlines")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_misfits.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_misfits", None)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("network", "factory", "starts", "ends"),
    [
        ("generator", "flat", "gives samples of shape (3,), but the data has (2,)", ""),
        ("generator", "narrow", "does not fit the data of shape (2,): RuntimeError: ", "(2x4 and 5x2)"),
        ("critic", "judge", "does not fit the data of shape (2,): RuntimeError: ", "(2x2 and 7x1)"),
        ("critic", "Lists", "does not fit the data of shape (2,): KeyError: ", "lines'"),
    ],
)
def test_a_network_whose_shapes_do_not_fit_is_named_with_the_shapes(
    network: str, factory: str, starts: str, ends: str, toy_content: dict[str, Any], toy_setup: Setup
) -> None:
    toy_content["networks"][network] = {"factory": f"own_misfits:{factory}"}
    said = refused(toy_content, toy_setup)
    assert said.startswith(f"networks.{network}: {starts}")
    assert said.endswith(ends)


@pytest.mark.usefixtures("own_module")
def test_the_look_at_the_networks_changes_nothing(toy_content: dict[str, Any], toy_setup: Setup) -> None:
    toy_content["networks"]["critic"] = {"factory": "own_misfits:Noisy"}
    pipeline = Pipeline.parse(toy_content)
    torch.manual_seed(1)
    game = build_game(pipeline)
    built = build_networks(pipeline, game, toy_setup)
    after = torch.get_rng_state()
    assert list(built) == list(game.networks)
    assert all(network.training for network in built.values())
    statistics = dict(built["generator"].named_buffers())
    assert statistics["layers.1.running_mean"].eq(0).all()
    assert statistics["layers.1.num_batches_tracked"] == 0
    arguments = network_arguments(pipeline, toy_setup.dataset)
    torch.manual_seed(1)
    for name in game.networks:
        alone = networks.build(arguments[name]["factory"], arguments[name]["options"])
        for a, b in zip(alone.parameters(), built[name].parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.usefixtures("own_module")
def test_a_number_of_moves_is_no_size(toy_content: dict[str, Any], toy_setup: Setup) -> None:
    """A factory's own `n_critic`, or `k`, is not the game's: only what is called ..._dim is handed over."""
    toy_content["networks"]["critic"] = {"factory": "own_misfits:counting"}
    arguments = network_arguments(Pipeline.parse(toy_content), toy_setup.dataset)
    assert arguments["critic"]["options"] == {"sample_shape": [2]}


def test_facts_are_sizes_and_the_data(digits: Pipeline, digits_setup: Setup) -> None:
    arguments = network_arguments(digits, digits_setup.dataset)
    assert arguments == {
        "generator": {
            "factory": "mlp_generator",
            "options": {"z_dim": 64, "sample_shape": [1, 8, 8], "widths": [128, 128]},
        },
        "critic": {"factory": "mlp_critic", "options": {"sample_shape": [1, 8, 8], "widths": [128, 128]}},
    }


def test_a_worker_that_serves_many_trials_loads_the_data_once(toy: Toy) -> None:
    first, second = setup(toy()), setup(toy({"lr_critic": 0.01, "training.batch_size": 8}))
    assert first.dataset is second.dataset
    assert first.scorer is second.scorer
    assert setup(toy({"objective.samples": 50})).scorer is not first.scorer

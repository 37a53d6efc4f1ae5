"""What a training leaves, as a thing of its own: saved is loaded, a seed is a sequence, classes and ways by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saddlepoint import __version__, games, networks
from saddlepoint.errors import UserError
from saddlepoint.generator import CARD, WEIGHTS, Generator, load_generator, save_generator

OPTIONS: dict[str, Any] = {"z_dim": 3, "sample_shape": [1, 8, 8], "widths": [16], "norm": "batch"}
STRUCTURE = {"z_dim": 3, "n_critic": 1}


def card(**changes: Any) -> dict[str, Any]:
    return {
        "game": {"name": "wgan", "structure": STRUCTURE},
        "networks": {"generator": {"factory": "mlp_generator", "options": OPTIONS}},
        "z_dim": 3,
        "sample_shape": [1, 8, 8],
    } | changes


def network(factory: str = "mlp_generator", options: dict[str, Any] = OPTIONS) -> nn.Module:
    torch.manual_seed(0)
    net = networks.build(factory, options)
    labels = [torch.arange(32) % 3] if "classes" in options else []
    net(torch.randn(32, 3), *labels)  # so that the running statistics are not the initial ones
    return net.eval()


@pytest.fixture(scope="module")
def generator() -> Generator:
    structure = games.find("wgan").Structure(**STRUCTURE)
    return Generator(games.build("wgan", structure), {"generator": network()}, card())


@pytest.fixture(scope="module")
def conditional() -> Generator:
    described = card(game={"name": "cwgan", "structure": STRUCTURE}, label_shares=[0.5, 0.3, 0.2])
    net = network("conditional_mlp_generator", OPTIONS | {"classes": 3})
    return Generator(games.build("cwgan", games.find("cwgan").Structure(**STRUCTURE)), {"generator": net}, described)


def saved(folder: Path) -> nn.Module:
    net = network()
    save_generator(folder, {"generator": net}, card())
    return net


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    net, z = saved(tmp_path).train(), torch.randn(20, 3)
    torch.manual_seed(999)
    loaded = load_generator(tmp_path)
    assert torch.equal(loaded(z), net.eval()(z))
    assert not loaded(z).requires_grad
    assert not loaded.networks["generator"].training
    assert loaded.sample_shape == (1, 8, 8)
    assert loaded.card == {"format": 2, "saddlepoint": __version__, **card()}
    assert sorted(file.name for file in tmp_path.iterdir()) == [CARD, WEIGHTS]


def test_a_training_network_is_used_in_evaluation_mode_and_goes_on_training(generator: Generator) -> None:
    net = generator.networks["generator"].train()
    statistics = [buffer.clone() for buffer in net.buffers()]
    assert generator.sample(1).shape == (1, 1, 8, 8)  # batch norm in training mode refuses a batch of one
    assert net.training
    assert all(torch.equal(a, b) for a, b in zip(statistics, net.buffers(), strict=True))
    net.eval()


def test_a_seed_is_a_sequence_of_samples(generator: Generator) -> None:
    many = generator.sample(1100, seed=5)
    assert many.shape == (1100, 1, 8, 8)
    assert torch.equal(many, generator.sample(1100, seed=5))
    assert not torch.isclose(many[:100], generator.sample(100, seed=6)).all(dim=0).any()
    assert len(torch.unique(many.flatten(1), dim=0)) == 1100
    for n in (1, 2, 7, 16, 33, 512, 513, 1030):  # how many are drawn changes none of the first
        torch.testing.assert_close(generator.sample(n, seed=5), many[:n], rtol=0, atol=1e-6)


def test_samples_do_not_touch_anybody_elses_randomness(generator: Generator) -> None:
    before = torch.get_rng_state()
    generator.sample(5)
    assert torch.equal(before, torch.get_rng_state())


def test_labels_come_with_the_shares_of_the_data(conditional: Generator) -> None:
    """6000 draws: a share's standard deviation is at most .0065."""
    samples, labels = conditional.draw(6000, torch.Generator().manual_seed(0))
    assert labels is not None
    shares = torch.bincount(labels, minlength=3) / 6000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    _, fewer = conditional.draw(700, torch.Generator().manual_seed(0))
    assert fewer is not None
    assert torch.equal(fewer, labels[:700])
    with torch.no_grad():  # each sample is of the label beside it
        z = conditional.latents(512, torch.Generator().manual_seed(0))
        again = conditional.networks["generator"](z, labels[:512])
    torch.testing.assert_close(samples[:512], again, rtol=0, atol=1e-6)


def test_one_class_from_the_same_noise_as_any_other(conditional: Generator) -> None:
    zeros, ones = conditional.sample(20, seed=3, label=0), conditional.sample(20, seed=3, label=1)
    z = conditional.latents(512, torch.Generator().manual_seed(0))[:20]
    assert not torch.isclose(zeros, ones).all(dim=0).any()
    of_zero, of_one = (conditional(z, torch.full((20,), label)) for label in (0, 1))
    assert not torch.equal(of_zero, of_one)


@pytest.mark.parametrize("label", [3, -1, 7])
def test_a_class_that_there_is_not(label: int, conditional: Generator, generator: Generator) -> None:
    with pytest.raises(UserError) as error:
        conditional.sample(5, label=label)
    assert str(error.value) == f"class: {label} cannot be; it must be 0 to 2"
    with pytest.raises(UserError) as error:
        generator.sample(5, label=label)
    assert str(error.value) == f"class: {label} cannot be; the model knows no classes"


def test_what_a_model_cannot_do_is_one_line(generator: Generator) -> None:
    images = torch.zeros(2, 1, 8, 8)
    for use, line in (
        (lambda: generator.translate(images, "x_to_y"), "model: a wgan draws samples, and translates nothing"),
        (lambda: generator.posterior(images, torch.Generator()), "model: a wgan has no encoder, and infers no latents"),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert str(error.value).startswith(line)


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_folder_without_a_generator_is_one_line(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError) as error:
        load_generator(tmp_path)
    assert str(error.value) == f"{tmp_path} holds no generator: {name} is missing"


def described(**options: Any) -> bytes:
    """A card with other options of its network."""
    nets = {"generator": {"factory": "mlp_generator", "options": options}}
    return json.dumps({"format": 2, **card(networks=nets)}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CARD, b"{half a ca"),
        (CARD, b"\xff\xfe\x00"),
        (CARD, b"[1, 2]"),
        (CARD, b"{}"),
        (CARD, b'{"format": 1, "network": {}}'),
        (WEIGHTS, b"nothing of the kind"),
        (CARD, described(**OPTIONS | {"widths": [8]})),
        (CARD, described(z_dim=3)),
        (CARD, json.dumps({"format": 2, **card(game={"name": "wgan", "structure": {"z": 3}})}).encode()),
        (CARD, json.dumps({"format": 2, **card(game={"name": "wgn", "structure": STRUCTURE})}).encode()),
    ],
)
def test_a_damaged_generator_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_generator(tmp_path)
    line = str(error.value)
    assert line.startswith((f"{tmp_path} holds no whole generator: ", f"{tmp_path / CARD}: "))
    assert "\n" not in line
    assert len(line) < 500

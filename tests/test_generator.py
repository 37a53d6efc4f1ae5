"""A generator as a thing of its own: what is saved is what is loaded, and a seed is a sequence of samples."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saddlepoint import __version__, networks
from saddlepoint.errors import UserError
from saddlepoint.training.generator import CARD, WEIGHTS, Generator, describe, load_generator, save_generator

OPTIONS: dict[str, Any] = {"z_dim": 3, "sample_shape": [1, 8, 8], "widths": [16], "norm": "batch"}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = networks.build("mlp_generator", OPTIONS)
    net(torch.randn(32, 3))  # so that the running statistics are not the initial ones
    return net.eval()


def card() -> dict[str, Any]:
    return describe({"factory": "mlp_generator", "options": OPTIONS}, z_dim=3, sample_shape=[1, 8, 8], game="wgan")


def described(options: dict[str, Any]) -> bytes:
    return json.dumps(describe({"factory": "mlp_generator", "options": options})).encode()


def saved(folder: Path) -> nn.Module:
    net = network()
    save_generator(folder, net, card())
    return net


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    net, z = saved(tmp_path).train(), torch.randn(20, 3)
    torch.manual_seed(999)
    loaded = load_generator(tmp_path)
    assert torch.equal(loaded(z), net.eval()(z))
    assert not loaded(z).requires_grad
    assert not loaded.network.training
    assert loaded.sample_shape == (1, 8, 8)
    assert loaded.card == {
        "format": 1,
        "saddlepoint": __version__,
        "network": {"factory": "mlp_generator", "options": OPTIONS},
        "z_dim": 3,
        "sample_shape": [1, 8, 8],
        "game": "wgan",
    }
    assert sorted(file.name for file in tmp_path.iterdir()) == [CARD, WEIGHTS]


def test_a_seed_is_a_sequence_of_samples() -> None:
    generator = Generator(network(), card())
    many = generator.sample(100, seed=5)
    assert many.shape == (100, 1, 8, 8)
    assert torch.equal(many, generator.sample(100, seed=5))
    assert not torch.isclose(many, generator.sample(100, seed=6)).all(dim=0).any()
    assert len(torch.unique(many.flatten(1), dim=0)) == 100
    for n in (1, 2, 7, 16, 33, 99):  # neither how many are drawn ...
        torch.testing.assert_close(generator.sample(n, seed=5), many[:n], rtol=0, atol=1e-6)
    for batch in (1, 7, 64, 1000):  # ... nor in which batches
        torch.testing.assert_close(generator.sample(100, seed=5, batch=batch), many, rtol=0, atol=1e-6)


def test_samples_do_not_touch_anybody_elses_randomness() -> None:
    generator, before = Generator(network(), card()), torch.get_rng_state()
    generator.sample(5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_folder_without_a_generator_is_one_line(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError) as error:
        load_generator(tmp_path)
    assert str(error.value) == f"{tmp_path} holds no generator: {name} is missing"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CARD, b"{half a ca"),
        (CARD, b"\xff\xfe\x00"),
        (CARD, b"[1, 2]"),
        (CARD, b"{}"),
        (WEIGHTS, b"nothing of the kind"),
        (CARD, described(OPTIONS | {"widths": [8]})),
        (CARD, described({"z_dim": 3})),
    ],
)
def test_a_damaged_generator_is_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_generator(tmp_path)
    line = str(error.value)
    assert line.startswith((f"{tmp_path} holds no whole generator: ", f"{tmp_path / CARD}: network: "))
    assert "\n" not in line
    assert len(line) < 500

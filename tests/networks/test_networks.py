"""The factories: shapes at every size, what they refuse and in which words, and one's own by import path."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from saddlepoint import networks
from saddlepoint.errors import UserError

FACTS: dict[str, Any] = {"z_dim": 5, "sample_shape": [1, 8, 8], "classes": 10}


def built(factory: str, facts: dict[str, Any] | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    key = "networks.net"
    return networks.build(factory, networks.with_facts(factory, options, facts or FACTS, key), key)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_the_dcgan_pair_at_every_size(size: int, channels: int, norm: str) -> None:
    facts = {"z_dim": 5, "sample_shape": [channels, size, size]}
    samples = built("dcgan_generator", facts, width=2, norm=norm)(torch.randn(3, 5))
    assert samples.shape == (3, channels, size, size)
    assert samples.abs().max() <= 1
    assert built("dcgan_critic", facts, width=2, norm=norm)(samples).shape == (3,)


def test_the_dcgan_pair_at_64_is_the_papers() -> None:
    """Figure 1 and the authors' code: 4x4x512, 8x8x256, 16x16x128, 32x32x64, 64x64x3; no bias at a norm."""
    facts = {"z_dim": 100, "sample_shape": [3, 64, 64]}
    up = [m for m in built("dcgan_generator", facts).modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in up] == [512, 256, 128, 64, 3]
    assert [layer.bias is None for layer in up] == [True, True, True, True, False]
    critic = built("dcgan_critic", facts)
    down = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 256, 512, 1]
    assert [m.num_features for m in critic.modules() if isinstance(m, nn.BatchNorm2d)] == [128, 256, 512]
    big = up[1].weight.detach()  # two million numbers from N(0, 0.02)
    assert float(big.std()) == pytest.approx(0.02, rel=0.01)
    assert float(big.mean()) == pytest.approx(0.0, abs=1e-4)
    scales = torch.cat([m.weight.detach() for m in critic.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.003)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("shape", [(2,), (1, 8, 8), (3, 16, 16), (1, 32, 32), (3, 64, 64), (1, 128, 128)])
def test_the_mlp_pair_at_every_shape(shape: tuple[int, ...], norm: str) -> None:
    facts = {"z_dim": 5, "sample_shape": list(shape)}
    samples = built("mlp_generator", facts, widths=[7, 6], norm=norm)(torch.randn(4, 5))
    assert samples.shape == (4, *shape)
    assert built("mlp_critic", facts, widths=[7, 6])(samples).shape == (4,)


def test_an_mlp_generator_is_bounded_for_images_and_free_for_points_unless_told() -> None:
    def largest(shape: list[int], **options: str) -> float:
        net = built("mlp_generator", {"z_dim": 5, "sample_shape": shape}, widths=[8], **options)
        return float(net(1e4 * torch.randn(50, 5)).detach().abs().max())

    assert largest([1, 8, 8]) <= 1 < largest([2])
    assert largest([2], output="tanh") <= 1 < largest([1, 8, 8], output="none")


def test_widths_slope_and_norm_are_what_is_built() -> None:
    critic = built("mlp_critic", widths=[7, 6], slope=0.3)
    assert [(m.in_features, m.out_features) for m in critic.modules() if isinstance(m, nn.Linear)] == [
        (64, 7),
        (7, 6),
        (6, 1),
    ]
    assert [m.negative_slope for m in critic.modules() if isinstance(m, nn.LeakyReLU)] == [0.3, 0.3]
    generator = built("mlp_generator", widths=[7], norm="batch")
    assert [m.num_features for m in generator.modules() if isinstance(m, nn.BatchNorm1d)] == [7]
    assert not any(isinstance(m, nn.BatchNorm1d) for m in built("mlp_generator", widths=[7]).modules())


def test_an_mlp_critic_judges_each_sample_alone() -> None:
    critic, x = built("mlp_critic", widths=[16]), torch.randn(6, 1, 8, 8)
    alone = torch.cat([critic(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(critic(x), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [[1, 12, 12], [1, 8, 16], [1, 256, 256], [2], [1, 4, 4]])
def test_dcgan_names_the_sizes_that_it_can_do(shape: list[int]) -> None:
    with pytest.raises(UserError) as error:
        built("dcgan_generator", {"z_dim": 5, "sample_shape": shape})
    data = "x".join(map(str, shape))
    assert str(error.value) == (
        f"networks.net: dcgan works on square images of size 8, 16, 32, 64, 128; the data is {data}"
    )


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("mlp_generater", {}, ".factory: 'mlp_generater' is not known; did you mean 'mlp_generator'?"),
        ("mlp_generator", {"width": [8]}, ".width: 'width' is not known; did you mean 'widths'?"),
        ("mlp_critic", {"norm": "batch"}, ".norm: 'norm' is not known; known: slope, widths"),
        ("mlp_generator", {"norm": "btach"}, ": norm: 'btach' should be 'none' or 'batch'"),
        ("mlp_generator", {"output": "relu"}, ": output: 'relu' should be 'tanh' or 'none'"),
        ("mlp_generator", {"widths": 64}, ": widths: 64 should be an instance of Sequence"),
        ("mlp_critic", {"widths": [8, 0]}, ": widths.1: 0 should be greater than or equal to 1"),
        ("dcgan_critic", {"norm": "layer"}, ": norm: 'layer' should be 'batch' or 'none'"),
        ("dcgan_critic", {"width": 0}, ": width: 0 should be greater than or equal to 1"),
        ("mlp_generator", {"z_dim": 3}, ".z_dim: is no option; it follows from the data and the game: 5"),
        (
            "torch:arange",
            {"end": 3},
            ".factory: 'torch:arange' has no signature; call it in a function of yours",
        ),
        ("torch:pi", {}, ".factory: 'torch:pi' is no factory: it cannot be called"),
        ("torch.nn:Liner", {}, ".factory: 'torch.nn:Liner': 'Liner' is not known; did you mean 'Linear'?"),
        (
            "no_such_module:Net",
            {},
            ".factory: 'no_such_module:Net': there is no module 'no_such_module', here or installed",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(factory: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        built(factory, **options)
    assert str(error.value) == "networks.net" + message


OWN = """
from torch import nn

def critic(sample_shape, k: int = 3, **more):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))
    net.seen = (sample_shape, k, more)
    return net

class Wide(nn.Linear):
    def __init__(self, z_dim: int, classes: int, width: "Unknown" = 4):
        super().__init__(z_dim, classes * width)

def text(sample_shape):
    return "a critic"

def broken(sample_shape):
    raise ValueError("nothing\\nworks")

def misses(sample_shape, depth):
    return nn.Identity()
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_nets", None)


@pytest.mark.usefixtures("own_module")
def test_ones_own_factory_gets_the_facts_that_its_signature_names_and_its_options() -> None:
    assert built("own_nets:critic").seen == ([1, 8, 8], 3, {})
    assert built("own_nets:critic", k=5, depth=2).seen == ([1, 8, 8], 5, {"depth": 2})
    assert built("own_nets:Wide", width=2).weight.shape == (20, 5)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("own_nets:text", {}, ".factory: 'own_nets:text' gives str, not an nn.Module"),
        (
            "own_nets:broken",
            {},
            ": own_nets:broken with {'sample_shape': [1, 8, 8]} fails: ValueError: nothing works",
        ),
        (
            "own_nets:critic",
            {"k": "three"},
            ": k: 'three' should be a valid integer, unable to parse string as an integer",
        ),
        ("own_nets:text", {"depth": 2}, ".depth: 'depth' is not known; known: none"),
        ("own_nets:Wild", {}, ".factory: 'own_nets:Wild': 'Wild' is not known; did you mean 'Wide'?"),
    ],
)
def test_what_is_wrong_with_ones_own_factory(factory: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        built(factory, **options)
    assert str(error.value) == "networks.net" + message


@pytest.mark.usefixtures("own_module")
def test_a_missing_argument_is_named() -> None:
    with pytest.raises(UserError, match=r"missing 1 required positional argument: 'depth'"):
        built("own_nets:misses")

"""Encoders, decoder and adversary: shapes at every size, the moments that are claimed, and what T adds of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from saddlepoint import networks

SHAPES = [([2], []), ([1, 2, 2], []), ([1, 8, 8], [4, 6]), ([3, 28, 28], [4, 5, 6]), ([1, 5, 12], [4, 5, 6])]


def built(factory: str, shape: list[int] | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    facts = {"z_dim": 3, "eps_dim": 8, "sample_shape": shape or [1, 8, 8]}
    return networks.build(factory, networks.with_facts(factory, options, facts, "networks.net"), "networks.net")


@pytest.mark.parametrize(("shape", "channels"), SHAPES)
def test_shapes_of_all_five(shape: list[int], channels: list[int]) -> None:
    x, z, eps = torch.randn(7, *shape), torch.randn(7, 3), torch.randn(7, 8)
    few: dict[str, Any] = {"channels": channels, "widths": [16]}
    assert built("noise_encoder", shape, **few)(x, eps).shape == (7, 3)
    assert [part.shape for part in built("basis_encoder", shape, bases=4, **few)(x, eps)] == [(7, 3)] * 3
    assert [part.shape for part in built("gaussian_encoder", shape, **few)(x)] == [(7, 3)] * 2
    assert built("bernoulli_decoder", shape, **few)(z).shape == (7, *shape)
    assert built("adversary", shape, channels=channels, width=16, blocks=2)(x, z).shape == (7,)


def test_convolutions_halve_the_image_and_the_decoder_goes_back_the_same_way() -> None:
    encoder = built("noise_encoder", [1, 28, 28], channels=[4, 5, 6], widths=[10])
    decoder = built("bernoulli_decoder", [1, 28, 28], channels=[4, 5, 6], widths=[10])
    linear = [m.in_features for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert linear == [6 * 4 * 4 + 8, 10]  # 28, 14, 7, 4
    up = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.output_padding) for m in up] == [
        (6, 5, (0, 0)),  # 4 to 7
        (5, 4, (1, 1)),
        (4, 1, (1, 1)),
    ]
    assert isinstance(list(decoder.modules())[-1], nn.ConvTranspose2d)  # logits: nothing bounds them


def test_the_toys_networks_are_those_of_the_authors() -> None:
    """64-64-64 with the noise beside x; T of five residual blocks of 256."""
    encoder, adversary = built("noise_encoder", [1, 2, 2]), built("adversary", [1, 2, 2])
    sizes = lambda net: [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]  # noqa: E731
    assert sizes(encoder) == [(4 + 8, 64), (64, 64), (64, 64), (64, 3)]
    assert sizes(adversary) == [(4 + 3, 256), *[(256, 256)] * 10, (256, 1)]


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_the_moments_of_a_basis_encoder_are_those_of_its_samples(shift: float) -> None:
    """One x, many eps: mean and variance over the samples are what is claimed for it."""
    encoder = built("basis_encoder", widths=[16], bases=4, basis_widths=[16])
    with torch.no_grad():
        encoder.scale.bias.fill_(shift)  # type: ignore[union-attr, operator]
        z, mean, variance = encoder(torch.randn(1, 1, 8, 8).expand(50_000, -1, -1, -1), torch.randn(50_000, 8))
    assert float((mean - mean[0]).abs().max()) < 1e-5
    torch.testing.assert_close(z.mean(0), mean[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(z.var(0), variance[0] - 1e-4, rtol=0.05, atol=1e-7)  # correlations of eps at random
    assert float(variance[0].min()) > 1e-4


def test_a_basis_encoder_is_z0_and_each_v_on_its_own_part_of_the_noise() -> None:
    encoder: Any = built("basis_encoder", widths=[16], bases=4, basis_widths=[16])
    x, eps = torch.randn(6, 1, 8, 8), torch.randn(6, 8)
    features = encoder.trunk(encoder.features(x))
    z = encoder.offset(features)
    for i in range(4):
        rows = slice(3 * i, 3 * i + 3)
        a = elu(features @ encoder.scale.weight[rows].T + encoder.scale.bias[rows] - 5) + 1
        first, _, last = encoder.basis
        hidden = elu(eps[:, 2 * i : 2 * i + 2] @ first.weight[i] + first.bias[i])
        z = z + a * (hidden @ last.weight[i] + last.bias[i])
        assert float(a.detach().min()) > 0
    torch.testing.assert_close(encoder(x, eps)[0], z, rtol=1e-5, atol=1e-6)
    assert float(encoder.offset.weight.detach().abs().max()) <= 2e-5  # z_0 knows nothing of x at first


def test_noise_moves_a_sample_and_another_sample_does_not() -> None:
    x, eps = torch.randn(6, 1, 8, 8), torch.randn(6, 8)
    encoder = built("noise_encoder", channels=[4], widths=[16])
    alone = torch.cat([encoder(x[i : i + 1], eps[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(encoder(x, eps), alone, rtol=1e-5, atol=1e-6)
    assert not torch.isclose(encoder(x, eps), encoder(x, eps.flip(0))).any()


def test_t_is_its_network_and_the_sum_of_z_squared() -> None:
    """Far out an ELU network is linear in z, so the second difference of T along z is that of z squared: 2 a step."""
    adversary = built("adversary", width=16, blocks=2).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64).expand(3, -1, -1, -1)
    direction = torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64)
    t: Callable[[float], Tensor] = lambda r: adversary(x[:1], r * direction[None])  # noqa: E731
    with torch.no_grad():
        second = t(1001.0) - 2 * t(1000.0) + t(999.0)
        assert float(second) == pytest.approx(2.0, abs=1e-6)
        both = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
        plain: Any = adversary
        bare = plain.layers(torch.cat([plain.features(x[:2]), both], dim=1)).squeeze(1)
        assert (adversary(x[:2], both) - bare).tolist() == pytest.approx([0.0, 14.0])


def test_a_residual_block_adds_nothing_at_first_and_can_learn() -> None:
    deep, h = built("adversary", width=16, blocks=1), torch.randn(5, 16)
    block: Any = next(m for m in deep.modules() if type(m).__name__ == "Residual")
    torch.testing.assert_close(block(h), elu(h))
    (gradient,) = torch.autograd.grad(block(h).sum(), block.layers[2].weight)
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("factory", "shape", "options", "message"),
    [
        ("noise_encoder", [2], {"channels": [4]}, "networks.net: channels: [4] need images; the data is 2"),
        ("bernoulli_decoder", [2], {"channels": [4]}, "networks.net: channels: [4] need images; the data is 2"),
        ("basis_encoder", None, {"bases": 3}, "networks.net: bases: 3 must divide eps_dim, 8, into equal parts"),
        (
            "noise_encoder",
            None,
            {"widths": [0]},
            "networks.net: widths.0: 0 should be greater than or equal to 1",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    factory: str,
    shape: list[int] | None,
    options: dict[str, Any],
    message: str,
    refusal: Callable[[Callable[[], object]], str],
) -> None:
    assert refusal(lambda: built(factory, shape, **options)) == message

"""Networks that are told the class: every class has its own output, and each row is read with its own label."""

from typing import Any

import pytest
import torch
from torch import nn

from saddlepoint import networks

IMAGE = {"sample_shape": [1, 8, 8], "classes": 5}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("conditional_mlp_generator", {"z_dim": 3, "widths": [16], **IMAGE}),
    ("conditional_mlp_critic", {"widths": [16], **IMAGE}),
    ("conditional_dcgan_generator", {"z_dim": 3, "width": 4, **IMAGE}),
    ("conditional_dcgan_critic", {"width": 4, **IMAGE}),
    ("conditional_mlp_generator", {"z_dim": 3, "sample_shape": [2], "classes": 5}),
    ("conditional_mlp_critic", {"sample_shape": [2], "classes": 5}),
]
every = pytest.mark.parametrize(("factory", "options"), CASES)


def built(factory: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(factory, options).eval()


def inputs(options: dict[str, Any], n: int = 10) -> torch.Tensor:
    shape = [options["z_dim"]] if "z_dim" in options else options["sample_shape"]
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


@every
def test_shapes(factory: str, options: dict[str, Any]) -> None:
    out = built(factory, options)(inputs(options), torch.arange(10) % 5)
    assert out.shape == (10, *(options["sample_shape"] if "z_dim" in options else ()))
    assert out.dtype == torch.float32


@every
def test_each_class_gives_another_output_and_each_row_has_its_own_label(factory: str, options: dict[str, Any]) -> None:
    net, one = built(factory, options), inputs(options, 1)
    x = one.expand(5, *one.shape[1:])
    with torch.no_grad():
        together = net(x, torch.arange(5))
        alone = torch.cat([net(x[:1], torch.tensor([label])) for label in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert len(torch.unique(together.reshape(5, -1).round(decimals=6), dim=0)) == 5


def test_an_mlp_reads_the_label_as_one_more_coordinate_each() -> None:
    """Mirza & Osindero: y enters one-hot beside z; so class k adds column k of the first layer's weights."""
    net = built("conditional_mlp_generator", {"z_dim": 3, "sample_shape": [2], "classes": 5, "widths": [16]})
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Linear))
    assert first.in_features == 8
    seen: list[torch.Tensor] = []
    first.register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    z = inputs({"z_dim": 3}, 1)
    for label in (0, 3):
        net(z, torch.tensor([label]))
    torch.testing.assert_close(seen[1] - seen[0], (first.weight[:, 6] - first.weight[:, 3])[None].detach())


def test_no_class_leaks_into_the_facts_of_an_unconditional_network() -> None:
    facts = {"z_dim": 3, "sample_shape": [2], "classes": 5}
    assert networks.with_facts("mlp_critic", {}, facts) == {"sample_shape": [2]}
    assert networks.with_facts("conditional_mlp_critic", {}, facts) == {"sample_shape": [2], "classes": 5}

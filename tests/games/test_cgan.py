"""The conditional form: what the losses see of the labels, and what they are without them."""

import math

import pytest
import torch
from torch import Tensor

from saddlepoint import games
from saddlepoint.games import Batch, Nets, cgan, conditional, cwgan, gan, wgan

X, Y, Z = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4, torch.randn(64, 2)
PAIRS = [(gan, cgan), (wgan, cwgan)]


def judge(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Some smooth function of the sample, and of its label if there is one."""
    out = x[:, 0] - 0.5 * x[:, 1].square()
    return out if y is None else out + torch.sin(3 * y)


def make(z: Tensor, y: Tensor | None = None) -> Tensor:
    return 2 * z + (0 if y is None else y[:, None])


def nets(name: str) -> Nets:
    return Nets({"generator": make, name: judge})


@pytest.mark.parametrize(("plain", "form"), PAIRS)
def test_with_the_labels_bound_by_hand_it_is_the_unconditional_game(plain, form) -> None:  # type: ignore[no-untyped-def]
    without, given = plain.game(plain.Structure()), form.game(form.Structure())
    critic = next(name for name in without.networks if name != "generator")
    bound = Nets({"generator": lambda z: make(z, Y), critic: lambda x: judge(x, Y)})
    h = form.Hyperparameters()
    assert given.order == without.order
    assert given.needs == "labels"
    for name, player in given.players.items():
        loss, logs = player.loss(nets(critic), Batch(X, Y), Z, h)
        expected, expected_logs = without.players[name].loss(bound, Batch(X), Z, h)
        assert torch.equal(loss, expected)
        assert logs.keys() == expected_logs.keys()
        other, _ = player.loss(nets(critic), Batch(X, Y.roll(1)), Z, h)
        assert not torch.isclose(loss, other)  # whoever ignores y plays another game
    assert given.sample is not None
    assert torch.equal(given.sample(nets(critic), Z, Y), make(Z, Y))


def test_the_value_under_the_optimal_discriminator_is_the_divergence_of_each_class() -> None:
    """Equation 2 at D*: E_y [2 JSD(p(x|y), g(x|y))] - 2 log 2. Two classes, disjoint in the one and equal in the other.

    JSD is log 2 and 0, so V* = (2 log 2 + 0) / 2 - 2 log 2 = -log 2; a discriminator blind to y would reach less.
    """
    labels = torch.arange(1000) % 2
    real = torch.stack([labels.float(), torch.zeros(1000)], dim=1)  # class 0 at 0, class 1 at 1

    def fake(z: Tensor, y: Tensor) -> Tensor:
        return torch.stack([torch.where(y == 0, 0.0, 2.0), torch.zeros(len(y))], dim=1)  # right, and wrong

    def optimal(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(y == 0, 0.0, torch.where(x[:, 0] == 1, 40.0, -40.0))  # log p(x|y) / g(x|y)

    game = cgan.game(cgan.Structure())
    at = Nets({"generator": fake, "discriminator": optimal})
    _, logs = game.players["discriminator"].loss(at, Batch(real, labels), Z, cgan.Hyperparameters())
    assert float(logs["value"]) == pytest.approx(-math.log(2), abs=1e-6)


def test_ones_own_game_has_a_conditional_form_too() -> None:
    own = conditional(games.build("wgan", wgan.Structure(z_dim=2)))
    assert own.needs == "labels"
    assert own.players["critic"].project is wgan.clip

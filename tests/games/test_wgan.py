"""WGAN: signs, the clip, and what a clipped critic does and does not say about the earth mover's distance."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.games import Batch, Game, Nets, wgan
from saddlepoint.training.plain import Plain

H = wgan.Hyperparameters()
QUANTILES = torch.special.ndtri((torch.arange(20_000) + 0.5) / 20_000)[:, None]  # N(0, 1), nothing drawn


class Still(nn.Module):
    """A generator that gives its noise back; its one weight moves by 1e-30 a step."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.shift


def test_losses_and_signs_of_a_known_critic() -> None:
    """f(x) = 2x on real samples of mean 3 and fakes of mean 1: Algorithm 1 ascends E f(x) - E f(g(z)) = 4."""
    nets = Nets({"critic": lambda x: 2 * x.squeeze(1), "generator": lambda z: z + 1})
    x, z = torch.tensor([[2.0], [4.0]]), torch.tensor([[-1.0], [1.0]])
    loss, logs = wgan.critic_loss(nets, Batch(x), z, H)
    assert (float(loss), float(logs["emd"])) == (-4.0, 4.0)
    loss, logs = wgan.generator_loss(nets, Batch(x), z, H)
    assert (float(loss), logs) == (-2.0, {})


def test_clip_is_elementwise_and_leaves_what_lies_inside() -> None:
    weight = torch.tensor([-3.0, -0.5, 0.0, 0.02, 7.0])
    clipped = wgan.clip(weight, wgan.Hyperparameters(clip=0.5))
    assert clipped.tolist() == pytest.approx([-0.5, -0.5, 0.0, 0.02, 0.5])
    assert weight[0] == -3.0


def watched(game: Game, seen: list[tuple[str, float]]) -> Game:
    """The game, noting before each move who moves and the critic's largest |w|."""

    def watch(name: str, game: Game) -> Game:
        player = game.players[name]

        def loss(nets, batch, z, h):  # type: ignore[no-untyped-def]
            seen.append((name, max(float(w.detach().abs().max()) for w in nets.critic.parameters())))
            return player.loss(nets, batch, z, h)

        return replace(game, players={**game.players, name: replace(player, loss=loss)})

    return watch("generator", watch("critic", game))


def test_n_critic_moves_each_followed_by_the_clip_then_one_of_the_generator() -> None:
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 8), nn.LeakyReLU(), nn.Linear(8, 1), nn.Flatten(0))
    seen: list[tuple[str, float]] = []
    game = watched(wgan.game(wgan.Structure(z_dim=1, n_critic=3)), seen)
    plain = Plain(game, {"critic": critic, "generator": Still()}, wgan.Hyperparameters(clip=0.03))
    for _ in range(2):
        plain.round(lambda: Batch(torch.randn(16, 1, generator=rng)), lambda: game.noise(16, rng))
    assert [name for name, _ in seen] == ["critic", "critic", "critic", "generator"] * 2
    assert seen[0][1] > 0.1  # as it was initialised
    assert all(0 < largest <= 0.03 for _, largest in seen[1:])  # after every step, the last included
    assert max(float(w.detach().abs().max()) for w in critic.parameters()) <= 0.03


def converged(shift: float) -> Plain:
    """A critic 1-64-64-1 (c = 0.01) on N(shift, 1) against N(0, 1), until its weights sit in the corners."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    layers = [nn.Linear(1, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)]
    game = wgan.game(wgan.Structure(z_dim=1, n_critic=300))
    h = wgan.Hyperparameters(lr_critic=5e-3, lr_generator=1e-30, clip=0.01)
    plain = Plain(game, {"critic": nn.Sequential(*layers, nn.Flatten(0)), "generator": Still()}, h)
    plain.round(lambda: Batch(shift + torch.randn(256, 1, generator=rng)), lambda: game.noise(256, rng))
    return plain


def test_a_clipped_critic_at_its_optimum() -> None:
    """Its slope reaches h^2 c^3, the product of the layers' bounds, and never passes it. So what it reports
    is far from the distance (0.5, 1 and 3 here), but positive for real minus fake, and monotone in the shift.
    """
    bound = 64**2 * 0.01**3
    line = torch.linspace(-10, 15, 2001)[:, None]
    reported = []
    for shift in (0.5, 1.0, 3.0):
        plain = converged(shift)
        with torch.no_grad():
            values = plain.nets.critic(line).double()
            _, logs = wgan.critic_loss(plain.nets, Batch(shift + QUANTILES), QUANTILES, plain.h)
        slope = float((values.diff() / line.squeeze(1).double().diff()).abs().max())
        assert 0.98 * bound < slope < 1.001 * bound
        reported.append(float(logs["emd"]))
    assert 0 < reported[0] < reported[1] < reported[2]
    # reference: an independent loop of 1000 steps at rate 1e-3; the optimum is a corner, whatever the rate
    assert reported == pytest.approx([0.00177, 0.00338, 0.00804], rel=0.06)


@pytest.mark.parametrize("theta", [0.25, 1.0, 4.0])
def test_the_critic_of_parallel_lines_is_linear_in_their_distance(theta: float) -> None:
    """Arjovsky et al. (2017), example 1: (theta, u) and (0, u) lie |theta| apart. The best linear critic with
    |w| <= c reports c * theta, where the JSD would say log 2 for all of them.
    """
    u = torch.linspace(0, 1, 50)
    real, fake = torch.stack([torch.full_like(u, theta), u], 1), torch.stack([torch.zeros_like(u), u], 1)
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    h = wgan.Hyperparameters(lr_critic=0.05, lr_generator=1e-30, clip=0.1)
    plain = Plain(wgan.game(wgan.Structure(n_critic=40)), {"critic": critic, "generator": Still()}, h)
    plain.round(lambda: Batch(real), lambda: fake)
    with torch.no_grad():
        _, logs = wgan.critic_loss(plain.nets, Batch(real), fake, h)
    assert float(logs["emd"]) == pytest.approx(0.1 * theta, rel=1e-5)

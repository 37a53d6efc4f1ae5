"""GAN against closed forms, on Gaussians. Expectations are means over quantiles, so that nothing is drawn."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from saddlepoint.games import Batch, Nets, gan
from saddlepoint.training.plain import Plain
from saddlepoint.training.state import decay

H = gan.Hyperparameters()
LOSSES = [gan.minimax, gan.non_saturating]


def quantiles(n: int = 100_000) -> Tensor:
    """N(0, 1) as n points of equal weight (n, 1): the mean of a smooth function is right to about 1 / n."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


def jsd(t: float, s: float = 1.0) -> float:
    """JSD(N(t, s^2), N(0, 1)) in nats, by adaptive quadrature."""
    p, q = stats.norm(t, s), stats.norm(0, 1)

    def integrand(x: float) -> float:
        a, b = float(p.pdf(x)), float(q.pdf(x))
        m = (a + b) / 2
        return (a * math.log(a / m) if a else 0.0) / 2 + (b * math.log(b / m) if b else 0.0) / 2

    value, _ = integrate.quad(integrand, -12, 14, epsabs=1e-12, limit=200)
    return float(value)


def optimal(t: float, s: float = 1.0) -> Callable[[Tensor], Tensor]:
    """T* = log p_r / p_g for p_r = N(t, s^2), p_g = N(0, 1)."""
    return lambda x: (x.square() / 2 - (x - t).square() / (2 * s * s) - math.log(s)).squeeze(1)


def constant(value: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.full((len(x),), value, dtype=torch.float64)


def generator_gradient(loss: Callable[..., tuple[Tensor, object]], t: float) -> float:
    """d loss / dt of the generator z + t, at D* of p_r = N(0, 1) and p_g = N(t, 1), held fixed."""
    shift = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    nets = Nets({"discriminator": lambda x: t * t / 2 - t * x.squeeze(1), "generator": lambda z: z + shift})
    value, _ = loss(nets, Batch(quantiles()), quantiles(), H)
    (gradient,) = torch.autograd.grad(value, shift)
    return float(gradient)


def test_gradients_of_both_generator_forms_at_the_optimal_discriminator() -> None:
    # d/dt 2 JSD = 0.34426 and d/dt [KL(p_g, p_r) - 2 JSD] = 0.45574 at t = 0.8, by quadrature
    assert generator_gradient(gan.minimax, 0.8) == pytest.approx(0.34426, abs=2e-5)
    assert generator_gradient(gan.non_saturating, 0.8) == pytest.approx(0.45574, abs=2e-5)


@pytest.mark.parametrize("t", [-1.5, 0.3, 0.8, 2.5])
def test_generator_gradients_against_the_divergences(t: float) -> None:
    step = 1e-4
    slope_of_2jsd = (2 * jsd(t + step) - 2 * jsd(t - step)) / (2 * step)
    minimax, non_saturating = (generator_gradient(loss, t) for loss in LOSSES)
    assert minimax == pytest.approx(slope_of_2jsd, abs=1e-4)
    assert minimax + non_saturating == pytest.approx(t, abs=1e-4)  # dKL(p_g, p_r)/dt = t exactly


def test_minimax_saturates_where_the_discriminator_rejects_and_the_other_form_does_not() -> None:
    z = torch.zeros(8, 1, dtype=torch.float64)
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    nets = Nets({"discriminator": lambda x: x.squeeze(1) - 20, "generator": lambda z: z + shift})
    (minimax,), (strong,) = (torch.autograd.grad(f(nets, Batch(z), z, H)[0], shift) for f in LOSSES)
    assert float(minimax) == pytest.approx(-math.exp(-20), rel=1e-6)  # -D
    assert float(strong) == pytest.approx(-1.0, abs=1e-8)  # -(1 - D)


def random_nets() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    generator = nn.Linear(2, 3)
    discriminator = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 1), nn.Flatten(0))
    return generator.double(), discriminator.double()


def test_labels_and_logit_flipped_together_change_no_generator_gradient() -> None:
    """With real = 0, fake = 1 the discriminator is D_B = 1 - D = P(fake | x), its logit -T."""
    generator, discriminator = random_nets()
    nets, z = Nets({"generator": generator, "discriminator": discriminator}), torch.randn(64, 2).double()
    flipped = [lambda d_b: d_b.log().mean(), lambda d_b: -(1 - d_b).log().mean()]  # both minimised over E_g
    weights = list(generator.parameters())
    for loss, other in zip(LOSSES, flipped, strict=True):
        ours = torch.autograd.grad(loss(nets, Batch(z), z, H)[0], weights)
        theirs = torch.autograd.grad(other(torch.sigmoid(-discriminator(generator(z)))), weights)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_real_and_fake_exchanged_with_the_logit_flipped_is_the_same_discriminator_loss() -> None:
    generator, discriminator = random_nets()
    x, z = torch.randn(32, 3).double(), torch.randn(32, 2).double()
    ours, _ = gan.discriminator_loss(Nets({"generator": generator, "discriminator": discriminator}), Batch(x), z, H)
    exchanged = Nets({"generator": lambda fake: x, "discriminator": lambda x: -discriminator(x)})
    theirs, _ = gan.discriminator_loss(exchanged, Batch(generator(z)), z, H)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)


@pytest.mark.parametrize("logit", [0.0, 1.0, -3.0])
def test_discriminator_loss_of_a_constant(logit: float) -> None:
    nets = Nets({"discriminator": constant(logit), "generator": lambda z: z})
    loss, logs = gan.discriminator_loss(nets, Batch(quantiles(10)), quantiles(10), H)
    d = 1 / (1 + math.exp(-logit))
    assert float(loss) == pytest.approx(-math.log(d) - math.log(1 - d), abs=1e-12)  # 2 log 2 at D = 1/2
    assert float(logs["value"]) == -float(loss)


def test_discriminator_loss_falls_where_the_logit_is_right_and_not_where_it_is_wrong() -> None:
    real, fake = torch.ones(4, 1, dtype=torch.float64), -torch.ones(4, 1, dtype=torch.float64)

    def loss(slope: float) -> float:
        nets = Nets({"discriminator": lambda x: slope * x.squeeze(1), "generator": lambda z: z})
        return float(gan.discriminator_loss(nets, Batch(real), fake, H)[0])

    assert loss(50.0) == pytest.approx(0.0, abs=1e-20)  # real = 1 is meant
    assert loss(-50.0) == pytest.approx(100.0, abs=1e-9)


@pytest.mark.parametrize(("m", "s"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.5)])
def test_value_at_the_optimum_is_2_jsd_less_2_log_2(m: float, s: float) -> None:
    nets = Nets({"discriminator": optimal(m, s), "generator": lambda z: z})
    _, logs = gan.discriminator_loss(nets, Batch(m + s * quantiles()), quantiles(), H)
    assert float(logs["value"]) / 2 + math.log(2) == pytest.approx(jsd(m, s), abs=1e-5)


class Still(nn.Module):
    """A generator that gives its noise back; its one weight moves by 1e-30 a step."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.shift


def trained(sample: Callable[[torch.Generator], Tensor], d: int, seed: int = 0) -> Plain:
    """A discriminator d-64-64-1 after 300 steps on 512 fresh samples against N(0, I_d), by the game."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(d, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 1), nn.Flatten(0)]
    game = gan.game(gan.Structure(z_dim=d, k=20))
    h = gan.Hyperparameters(lr_discriminator=2e-3, lr_generator=1e-30, beta1=0.9)
    plain = Plain(game, {"discriminator": nn.Sequential(*layers), "generator": Still()}, h)
    for round in range(15):
        plain.round(lambda: Batch(sample(rng)), lambda: game.noise(512, rng), decay("linear", round, 15))
    return plain


@pytest.mark.parametrize(("d", "m", "s"), [(1, 1.0, 1.0), (1, 1.0, 0.5), (2, 1.0, 1.0)])
def test_a_trained_discriminator_finds_d_star_and_the_jsd(d: int, m: float, s: float) -> None:
    """Tolerances: bias and three standard deviations over seeds. Along m one axis counts: |m| = m sqrt(d)."""
    plain = trained(lambda rng: m + s * torch.randn(512, d, generator=rng), d)
    rng = torch.Generator().manual_seed(100)
    real, fake = m + s * torch.randn(50_000, d, generator=rng), torch.randn(50_000, d, generator=rng)
    with torch.no_grad():
        _, logs = gan.discriminator_loss(plain.nets, Batch(real), fake, plain.h)
        both = torch.cat([real, fake])
        t_star = (both.square() / 2 - (both - m).square() / (2 * s * s) - math.log(s)).sum(1)
        error = (torch.sigmoid(plain.nets.discriminator(both)) - torch.sigmoid(t_star)).abs().mean()
    assert float(logs["value"]) / 2 + math.log(2) == pytest.approx(jsd(m * math.sqrt(d), s), abs=0.008)
    assert float(error) <= 0.02


@pytest.mark.parametrize("theta", [0.5, 2.0])
def test_disjoint_lines_are_told_apart_whatever_their_distance(theta: float) -> None:
    """Arjovsky et al. (2017), example 1: (theta, u) against (0, u). The JSD is log 2 for any theta but 0."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)

    def line(x: float) -> Tensor:
        return torch.stack([torch.full((64,), x), torch.rand(64, generator=rng)], dim=1)

    layers = [nn.Linear(2, 32), nn.ELU(), nn.Linear(32, 1), nn.Flatten(0)]
    h = gan.Hyperparameters(lr_discriminator=2e-2, lr_generator=1e-30)
    nets = {"discriminator": nn.Sequential(*layers), "generator": Still()}
    plain = Plain(gan.game(gan.Structure(z_dim=2, k=300)), nets, h)
    logs = plain.round(lambda: Batch(line(theta)), lambda: line(0.0))
    assert 0 < float(logs["loss_discriminator"]) < 0.02
    assert float(logs["value"]) / 2 + math.log(2) == pytest.approx(math.log(2), abs=0.01)

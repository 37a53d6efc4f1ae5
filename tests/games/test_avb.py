"""AVB against closed forms: Gaussian q(z|x) in one dimension. Means are over quantiles, so that nothing is drawn."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from saddlepoint.games import Batch, Game, Nets, avb
from saddlepoint.networks.encoders import Adversary, BasisEncoder, BernoulliDecoder, NoiseEncoder
from saddlepoint.training.plain import Plain

H = avb.Hyperparameters()
N = 100_000
EPS = torch.special.ndtri((torch.arange(N, dtype=torch.float64) + 0.5) / N)[:, None]  # N(0, 1) as N equal weights
NOISE = avb.Noise(z=EPS, eps=EPS)
X = Batch(-torch.ones(N, 1, 1, 1, dtype=torch.float64))
LAWS = [(0.8, 1.0), (-1.5, 0.5), (0.3, 2.0)]  # mean, standard deviation of q


def kl(m: float, s: float) -> float:
    """KL(N(m, s^2), N(0, 1))."""
    return (m * m + s * s - 1) / 2 - math.log(s)


def optimal(m: float, s: float) -> Callable[[Tensor, Tensor], Tensor]:
    """T* = log N(z; m, s^2) - log N(z; 0, 1)."""
    return lambda x, z: (z.square() / 2 - (z - m).square() / (2 * s * s) - math.log(s)).squeeze(1)


def nets(m: Any, s: Any, t: Callable[[Tensor, Tensor], Tensor], **others: Callable[..., Any]) -> Nets:
    """A Gaussian encoder, a decoder of one pixel that knows nothing, and an adversary."""
    decoder = lambda z: torch.zeros(len(z), 1, 1, 1, dtype=z.dtype)  # noqa: E731
    return Nets({"encoder": lambda x, eps: m + s * eps, "decoder": decoder, "adversary": t, **others})


def with_moments(m: Any, s: Any) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    return lambda x, eps: (m + s * eps, m * torch.ones_like(eps), s * s * torch.ones_like(eps))


@pytest.mark.parametrize(("m", "s"), LAWS)
def test_the_mean_of_the_optimal_t_over_q_is_the_kl(m: float, s: float) -> None:
    loss, logs = avb.primal_loss(nets(m, s, optimal(m, s)), X, NOISE, H)
    assert float(logs["kl"]) == pytest.approx(kl(m, s), abs=1e-3)
    assert float(logs["kl"]) > 0  # with flipped labels T is -T*, and the encoder runs away from the prior
    assert float(logs["reconstruction"]) == pytest.approx(math.log(2), abs=1e-12)
    assert float(loss) == -float(logs["elbo"]) == float(logs["kl"] + logs["reconstruction"])


@pytest.mark.parametrize(("m", "s"), LAWS)
def test_t_star_is_where_the_adversarys_loss_is_least(m: float, s: float) -> None:
    """No direction leads down from T*; towards it from elsewhere each does."""

    def slope(towards: Callable[[Tensor], Tensor], start: Callable[[Tensor, Tensor], Tensor]) -> float:
        a = torch.zeros((), dtype=torch.float64, requires_grad=True)
        moved = nets(m, s, lambda x, z: start(x, z) + a * towards(z.squeeze(1)))
        (gradient,) = torch.autograd.grad(avb.adversary_loss(moved, X, NOISE, H)[0], a)
        return float(gradient)

    for towards in (torch.ones_like, lambda z: z, torch.square, torch.cos):
        assert slope(towards, optimal(m, s)) == pytest.approx(0, abs=2e-3)
    t_star = optimal(m, s)
    nothing = lambda x, z: torch.zeros(len(z), dtype=z.dtype)  # noqa: E731
    assert slope(lambda z: t_star(z, z[:, None]), nothing) < -0.02


def test_the_adversarys_loss_is_cross_entropy_with_what_was_inferred_as_one() -> None:
    inferred, prior = 0.7, -0.4  # T, told apart by the sign of z
    t = lambda x, z: torch.where(z > 0, inferred, prior).squeeze(1)  # noqa: E731
    drawn = avb.Noise(z=-torch.ones(4, 1), eps=torch.ones(4, 1))
    loss, logs = avb.adversary_loss(nets(0.0, 1.0, t), Batch(-torch.ones(4, 1, 1, 1)), drawn, H)
    sigma = lambda logit: 1 / (1 + math.exp(-logit))  # noqa: E731
    assert float(loss) == pytest.approx(-math.log(sigma(inferred)) - math.log(1 - sigma(prior)), abs=1e-6)
    assert logs == {}


@pytest.mark.parametrize(("m", "s"), LAWS)
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_encoders_gradient_is_that_of_the_kl_through_z_alone(m: float, s: float, adaptive: bool) -> None:
    """T is held fixed, so the gradient comes through its input: d KL/dm = m and d KL/ds = s - 1/s exactly."""
    mean, std = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (m, s))
    if adaptive:  # r is q, and T* of the standardised z is 0
        t: Callable[[Tensor, Tensor], Tensor] = lambda x, z: 0 * z.squeeze(1)  # noqa: E731
        loss, _ = avb.adaptive_primal_loss(nets(0, 0, t, encoder=with_moments(mean, std)), X, NOISE, H)
    else:
        loss, _ = avb.primal_loss(nets(mean, std, optimal(m, s)), X, NOISE, H)
    gradients = torch.autograd.grad(loss, (mean, std))
    assert [float(g) for g in gradients] == pytest.approx([m, s - 1 / s], abs=2e-3)


def test_the_decoders_gradient_is_that_of_the_likelihood_alone() -> None:
    torch.manual_seed(0)
    encoder, decoder, adversary = NoiseEncoder([1, 2, 2], 2, 3), BernoulliDecoder(2, [1, 2, 2]), Adversary([1, 2, 2], 2)
    x, drawn = torch.randn(16, 1, 2, 2).sign(), avb.Noise(torch.randn(16, 2), torch.randn(16, 3))
    loss, _ = avb.primal_loss(
        Nets({"encoder": encoder, "decoder": decoder, "adversary": adversary}), Batch(x), drawn, H
    )
    p = torch.sigmoid(decoder(encoder(x, drawn.eps)))
    log_likelihood = torch.where(x > 0, p, 1 - p).log().flatten(1).sum(1).mean()  # a sum over pixels, not their mean
    weights = list(decoder.parameters())
    ours, alone = torch.autograd.grad(loss, weights), torch.autograd.grad(-log_likelihood, weights)
    torch.testing.assert_close(ours, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("m", "s"), LAWS)
def test_adaptive_contrast_gives_the_kl_whatever_the_moments_of_r(m: float, s: float) -> None:
    """KL(q, p) = E_q[log q - log r] + E_q[log r - log p] for any r: also for one that is not the best."""
    centre, spread = m - 0.3, 1.4 * s  # of r
    t_star = optimal((m - centre) / spread, s / spread)  # of (z - centre) / spread against N(0, 1)
    encoder = lambda x, eps: (m + s * eps, torch.full_like(eps, centre), torch.full_like(eps, spread**2))  # noqa: E731
    _, logs = avb.adaptive_primal_loss(nets(0, 0, t_star, encoder=encoder), X, NOISE, H)
    assert float(logs["kl"]) == pytest.approx(kl(m, s), abs=1e-3)


@pytest.mark.parametrize(("m", "s"), LAWS)
def test_adaptive_contrast_leaves_t_nothing_to_find_where_q_is_gaussian(m: float, s: float) -> None:
    seen: list[Tensor] = []

    def t(x: Tensor, z: Tensor) -> Tensor:
        seen.append(z)
        return 0 * z.squeeze(1)

    at = nets(0, 0, t, encoder=with_moments(m, s))
    _, logs = avb.adaptive_primal_loss(at, X, NOISE, H)
    assert float(logs["kl"]) == pytest.approx(kl(m, s), abs=1e-3)
    avb.adaptive_adversary_loss(at, X, NOISE, H)
    for z in seen:  # of the primal, and both of the adversary
        torch.testing.assert_close(z, EPS)


def test_the_moments_of_adaptive_contrast_are_held_fixed() -> None:
    """T(z) = 3 z on (z - m) / s with m moving: d/dm = 3 / s + d KL/dm if m in it is fixed, without 3 / s if not."""
    mean = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    at = nets(0, 0, lambda x, z: 3 * z.squeeze(1), encoder=with_moments(mean, 0.5))
    (gradient,) = torch.autograd.grad(avb.adaptive_primal_loss(at, X, NOISE, H)[0], mean)
    assert float(gradient) == pytest.approx(3 / 0.5 + 0.8, abs=1e-3)


def test_an_encoder_without_moments_is_refused_where_they_are_needed_and_one_with_them_is_taken_anywhere(
    refusal: Callable[[Callable[[], object]], str],
) -> None:
    bare, full = nets(0.5, 1.0, optimal(0, 1)), nets(0, 0, optimal(0, 1), encoder=with_moments(0.5, 1.0))
    assert refusal(lambda: avb.adaptive_primal_loss(bare, X, NOISE, H)) == (
        "networks.encoder: adaptive_contrast needs z with its moments, as basis_encoder gives it"
    )
    for loss in (avb.primal_loss, avb.adversary_loss):
        assert float(loss(bare, X, NOISE, H)[0]) == float(loss(full, X, NOISE, H)[0])


def built(k: int = 1) -> tuple[Game, dict[str, nn.Module]]:
    torch.manual_seed(0)
    game = avb.game(avb.Structure(z_dim=2, eps_dim=3, k=k))
    shape = [1, 2, 2]
    return game, {
        "encoder": NoiseEncoder(shape, 2, 3, [16]),
        "decoder": BernoulliDecoder(2, shape, [16]),
        "adversary": Adversary(shape, 2, 16, 1),
    }


def test_all_three_move_at_once_on_one_batch_and_noise_and_t_alone_before_them() -> None:
    game, networks = built(k=3)
    seen: list[tuple[str, Any, Any, Tensor]] = []

    def watch(name: str) -> Any:
        player = game.players[name]

        def loss(nets: Nets, batch: Batch, noise: avb.Noise, h: Any) -> Any:
            weights = torch.cat([w.detach().flatten() for net in networks.values() for w in net.parameters()])
            seen.append((name, batch.x, noise, weights))
            return player.loss(nets, batch, noise, h)

        return replace(player, loss=loss)

    rng = torch.Generator().manual_seed(1)
    plain = Plain(replace(game, players={name: watch(name) for name in game.players}), networks, H)
    before = [w.detach().clone() for w in networks["encoder"].parameters()]
    plain.round(lambda: Batch(torch.randn(8, 1, 2, 2, generator=rng).sign()), lambda: game.noise(8, rng))
    assert [name for name, *_ in seen] == ["adversary", "adversary", "primal", "adversary"]
    _, x, noise, weights = seen[2]
    _, same_x, same_noise, same_weights = seen[3]
    assert x is same_x
    assert noise is same_noise
    assert torch.equal(weights, same_weights)  # no step in between
    assert not torch.equal(seen[1][1], x)
    assert any(not torch.equal(w, b) for w, b in zip(networks["encoder"].parameters(), before, strict=True))


def test_the_adversary_moves_alone_and_no_gradient_of_its_loss_reaches_the_encoder() -> None:
    game, networks = built()
    networks["encoder"].requires_grad_(False)  # what the runner does with what a player does not own
    loss, _ = avb.adversary_loss(Nets(networks), Batch(torch.ones(8, 1, 2, 2)), game.noise(8, torch.Generator()), H)

    loss.backward()
    assert all(w.grad is None for w in networks["encoder"].parameters())
    assert sum(float(w.grad.abs().sum()) for w in networks["adversary"].parameters() if w.grad is not None) > 0
    still = Plain(replace(game, order=(("adversary",),)), networks, H)
    before = {name: [w.detach().clone() for w in net.parameters()] for name, net in networks.items()}
    still.round(lambda: Batch(torch.ones(8, 1, 2, 2)), lambda: game.noise(8, torch.Generator()))
    for name, net in networks.items():
        moved = any(not torch.equal(w, b) for w, b in zip(net.parameters(), before[name], strict=True))
        assert moved == (name == "adversary")


def test_adaptive_contrast_can_be_fused_lane_by_lane() -> None:
    """What the conformance suite shows of the plain form: lanes in one program equal each alone."""
    torch.manual_seed(0)
    game = avb.game(avb.Structure(z_dim=2, eps_dim=4, adaptive_contrast=True))
    encoder = BasisEncoder([1, 2, 2], 2, 4, [8], bases=2, basis_widths=[8])
    others = {"decoder": BernoulliDecoder(2, [1, 2, 2], [8]), "adversary": Adversary([1, 2, 2], 2, 8, 1)}
    lanes = [{key: w.detach() + 0.1 * lane for key, w in encoder.named_parameters()} for lane in range(3)]
    x, drawn = Batch(torch.randn(16, 1, 2, 2).sign()), game.noise(16, torch.Generator().manual_seed(1))
    for player in game.players.values():

        def loss(weights: dict[str, Tensor], player: Any = player) -> Tensor:
            nets = Nets({"encoder": lambda *inputs: functional_call(encoder, weights, inputs), **others})
            value: Tensor = player.loss(nets, x, drawn, H)[0]
            return value

        together = vmap(loss)({key: torch.stack([lane[key] for lane in lanes]) for key in lanes[0]})
        torch.testing.assert_close(together, torch.stack([loss(lane) for lane in lanes]), rtol=1e-4, atol=1e-5)
        assert len(set(together.tolist())) == 3


def test_prior_and_noise_are_independent_and_z_is_not_paired_with_x() -> None:
    game, _ = built()
    drawn = game.noise(4096, torch.Generator().manual_seed(0))
    assert (drawn.z.shape, drawn.eps.shape) == ((4096, 2), (4096, 3))
    together = torch.corrcoef(torch.cat([drawn.z, drawn.eps], 1).T) - torch.eye(5)
    assert float(together.abs().max()) < 0.06  # four standard errors
    assert game.latent is not None
    assert game.latent(4, torch.Generator()).shape == (4, 2)


def test_samples_are_expected_images_and_the_likelihood_a_sum_of_bernoullis() -> None:
    game, _ = built()
    logits = torch.tensor([[0.0, math.log(3), -math.log(3), 40.0]]).reshape(1, 1, 2, 2)  # P = 1/2, 3/4, 1/4, 1
    at = Nets({"decoder": lambda z: logits, "encoder": lambda x, eps: eps})
    assert game.sample is not None
    assert game.inference is not None
    assert game.sample(at, torch.zeros(1, 2), None).flatten().tolist() == pytest.approx([0, 0.5, -0.5, 1], abs=1e-6)
    x = torch.tensor([1.0, 1.0, 1.0, 1.0]).reshape(1, 1, 2, 2)
    value = game.inference.log_likelihood(at, x, torch.zeros(1, 2))
    assert value.tolist() == pytest.approx([math.log(1 / 2 * 3 / 4 * 1 / 4)], abs=1e-6)
    assert float(game.inference.log_likelihood(at, -x, torch.zeros(1, 2))) == pytest.approx(
        math.log(1 / 2 * 1 / 4 * 3 / 4) - 40, abs=1e-5
    )


@pytest.mark.parametrize(("m", "s"), [(1.0, 1.0), (0.5, 0.6)])
def test_a_trained_t_gives_the_kl_of_a_gaussian(m: float, s: float) -> None:
    """Against z in two dimensions, 300 steps on fresh samples; tolerance: bias and three sd over seeds."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)

    class Still(nn.Module):
        """A Gaussian encoder that stays as it is."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor, eps: Tensor) -> Tensor:
            return m + s * eps + 0 * self.weight

    game = replace(avb.game(avb.Structure(z_dim=2, eps_dim=2)), order=(("adversary",),) * 300)
    networks = {
        "encoder": Still(),
        "decoder": BernoulliDecoder(2, [1, 1, 1], [4]),
        "adversary": Adversary([1], 2, 64, 1),
    }
    x = Batch(torch.zeros(512, 1))
    plain = Plain(game, networks, avb.Hyperparameters(lr_adversary=2e-3))
    plain.round(lambda: x, lambda: game.noise(512, rng))
    with torch.no_grad():
        t = plain.nets.adversary(torch.zeros(50_000, 1), m + s * torch.randn(50_000, 2, generator=rng))
    assert float(t.mean()) == pytest.approx(2 * kl(m, s), abs=0.12)

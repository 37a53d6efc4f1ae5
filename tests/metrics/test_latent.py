"""Scores of latents against closed forms: x = W z + noise, whose p(x) and posterior are Gaussian, in any dimension."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from saddlepoint.metrics import latent
from saddlepoint.metrics.latent import kl_to_prior, latent_scores
from saddlepoint.metrics.subject import LatentModel

Linear = Callable[..., tuple[LatentModel, MultivariateNormal]]


def linear(z_dim: int, x_dim: int = 6, noise: float = 0.5, bias: float = 0.0, widen: float = 1.0) -> Any:
    """x = W z + noise * eps: the model, with its exact posterior or one that is off, and the law of x."""
    rng = torch.Generator().manual_seed(z_dim)
    w = torch.randn(x_dim, z_dim, generator=rng, dtype=torch.float64) / math.sqrt(z_dim)
    precision = torch.eye(z_dim, dtype=torch.float64) + w.T @ w / noise**2
    covariance = precision.inverse()
    factor = torch.linalg.cholesky(covariance)

    def posterior(x: Tensor, rng: torch.Generator) -> Tensor:
        mean = x.double() @ w @ covariance / noise**2 + bias
        return (mean + widen * torch.randn(len(x), z_dim, generator=rng).double() @ factor.T).float()

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        return Normal(z.double() @ w.T, noise).log_prob(x.double()).sum(1)  # type: ignore[no-untyped-call]

    law = MultivariateNormal(torch.zeros(x_dim).double(), w @ w.T + noise**2 * torch.eye(x_dim).double())  # type: ignore[no-untyped-call]
    return LatentModel(z_dim, posterior, log_likelihood), law


def drawn(law: MultivariateNormal, n: int) -> Tensor:
    torch.manual_seed(0)
    return law.sample((n,)).float()  # type: ignore[no-untyped-call]


def gaussian_kl(mean: Tensor, std: Tensor) -> float:
    return float((mean.square() + std.square() - 1).sum() / 2 - std.log().sum())


@pytest.mark.parametrize(("dimension", "n"), [(1, 256), (2, 256), (4, 256), (8, 256), (2, 20_000), (8, 5_000)])
def test_kl_of_gaussians(dimension: int, n: int) -> None:
    """The mean over repetitions: the bias is what a mean over many x does not average away."""
    rng = torch.Generator().manual_seed(dimension)
    mean, std = torch.randn(dimension, generator=rng), 0.05 + torch.rand(dimension, generator=rng)
    turn = torch.linalg.qr(torch.randn(dimension, dimension, generator=rng)).Q  # correlated coordinates
    repetitions = max(2, 20_000 // n)
    found = [kl_to_prior((mean + std * torch.randn(n, dimension, generator=rng)) @ turn) for _ in range(repetitions)]
    assert sum(found) / len(found) == pytest.approx(gaussian_kl(mean, std), abs=0.1)


@pytest.mark.parametrize(
    ("dimension", "n", "bias"), [(2, 256, 0.03), (2, 20_000, 0.01), (4, 256, 0.09), (8, 256, 0.32)]
)
def test_kl_of_a_quarter_of_the_prior_is_log_4_less_the_bias_that_is_stated(
    dimension: int, n: int, bias: float
) -> None:
    """Two coordinates folded to their positive half: a posterior of the four points, and no Gaussian."""
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(max(2, 20_000 // n)):
        z = torch.randn(n, dimension, generator=rng)
        found.append(kl_to_prior(torch.cat([z[:, :2].abs(), z[:, 2:]], dim=1)))
    error = sum(found) / len(found) - math.log(4)
    assert -bias - 0.02 < error < 0.02


def test_kl_is_infinite_without_a_density() -> None:
    point = torch.ones(300, 2)
    line = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(1, 2)
    repeated = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).repeat(6, 1)
    assert [kl_to_prior(z) for z in (point, line, repeated)] == [math.inf] * 3


@pytest.mark.parametrize(("z_dim", "noise"), [(1, 0.5), (2, 0.5), (2, 0.1), (2, 0.03)])
def test_quadrature_is_exact(z_dim: int, noise: float) -> None:
    """Also where the posterior is narrower than a step of the first grid, 0.05: noise 0.03 over six coordinates."""
    model, law = linear(z_dim, noise=noise)
    x = drawn(law, 5)
    exact = law.log_prob(x.double())  # type: ignore[no-untyped-call]
    torch.testing.assert_close(latent.by_quadrature(x, model), exact, rtol=0, atol=2e-3)


def test_a_pixel_that_is_a_probit_of_z() -> None:
    """P(x = 1 | z) = Phi(a + b z_1), so P(x = 1) = Phi(a / sqrt(1 + b^2)); a steep b is nearly a step."""

    def likelihood(a: float, b: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, z: torch.special.log_ndtr(x.flatten() * (a + b * z[:, 0]))

    for a, b in ((0.3, 1.0), (-1.0, 5.0), (2.0, 30.0)):
        model = LatentModel(2, lambda x, rng: torch.randn(len(x), 2, generator=rng), likelihood(a, b))
        found = latent.by_quadrature(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), model).exp()
        p = float(torch.special.ndtr(torch.tensor(a / math.sqrt(1 + b * b), dtype=torch.float64)))
        assert found.tolist() == pytest.approx([p, 1 - p], abs=1e-3)


@pytest.mark.parametrize(
    ("z_dim", "bias", "widen"), [(3, 0.0, 1.0), (8, 0.0, 1.0), (8, 0.1, 1.5), (8, 0.0, 0.6), (32, 0, 1)]
)
def test_importance_sampling_finds_log_p_also_from_a_posterior_that_is_off(
    z_dim: int, bias: float, widen: float
) -> None:
    model, law = linear(z_dim, bias=bias, widen=widen)
    x = drawn(law, 200)
    found = latent_scores(x, model, metrics=["log_likelihood", "importance_ess"])
    exact = float(law.log_prob(x.double()).mean())  # type: ignore[no-untyped-call]
    assert found["log_likelihood"] == pytest.approx(exact, abs=0.1 if z_dim < 32 else 1.0)
    assert 0 < found["importance_ess"] < 1
    if z_dim < 32:
        assert found["importance_ess"] > 0.03


def test_importance_sampling_says_by_its_effective_share_when_it_fails_and_then_is_too_low() -> None:
    model, law = linear(8, noise=0.05, bias=1.5)  # far outside of the posterior, whose std is some 0.05
    x = drawn(law, 50)
    found = latent_scores(x, model, metrics=["log_likelihood", "importance_ess"])
    assert found["importance_ess"] < 0.01
    assert found["log_likelihood"] < float(law.log_prob(x.double()).mean()) - 1  # type: ignore[no-untyped-call]


def test_importance_sampling_equals_quadrature_in_the_plane() -> None:
    model, law = linear(2)
    x = drawn(law, 100)
    z = model.posterior(x.repeat_interleave(500, 0), torch.Generator().manual_seed(1)).reshape(100, 500, 2)
    found, share = latent.by_importance(x, z, model, torch.Generator().manual_seed(2))
    error = found - latent.by_quadrature(x, model)
    stated = ((1 / share - 1) / 500).sqrt()  # standard error of each, n = 500; a little less, as the shares are exact
    assert 0.4 < float((error / stated).square().mean()) < 1.2
    assert float(error.abs().max()) < 0.2


@pytest.mark.parametrize("z_dim", [1, 2, 5, 8])
def test_with_the_exact_posterior_the_bound_is_tight(z_dim: int) -> None:
    model, law = linear(z_dim)
    x = drawn(law, 400)
    found = latent_scores(x, model, metrics=["elbo", "log_likelihood", "reconstruction", "posterior_kl"])
    exact = float(law.log_prob(x.double()).mean())  # type: ignore[no-untyped-call]
    assert found["elbo"] == pytest.approx(exact, abs=0.12)  # the bias of the KL, stated in the module
    assert found["log_likelihood"] == pytest.approx(exact, abs=0.03)
    assert found["elbo"] == -found["reconstruction"] - found["posterior_kl"]


@pytest.mark.parametrize("z_dim", [1, 2, 4])
def test_the_aggregate_of_exact_posteriors_is_the_prior_and_of_shifted_ones_is_not(z_dim: int) -> None:
    """Wide posteriors, of which 400 leave no gaps."""
    for bias in (0.0, 0.5):
        model, law = linear(z_dim, noise=2.0, bias=bias)
        found = latent_scores(drawn(law, 400), model, metrics=["aggregate_kl"])
        assert found["aggregate_kl"] == pytest.approx(z_dim * bias**2 / 2, abs=0.08)


@pytest.mark.parametrize(("bias", "widen"), [(0.3, 1.0), (0.0, 1.5)])
def test_the_gap_of_the_bound_is_the_kl_to_the_exact_posterior(bias: float, widen: float) -> None:
    """log p(x) - elbo = KL(q(z|x), p(z|x)), here of two Gaussians, the same for every x."""
    model, law = linear(2, bias=bias, widen=widen)
    x = drawn(law, 40)
    found = latent_scores(x, model, metrics=["elbo"])
    w = linear(2)[0]
    rng = torch.Generator().manual_seed(0)
    z = w.posterior(x[:1].expand(200_000, -1), rng).double()
    precision = torch.linalg.inv(torch.cov(z.T))
    shift = torch.full((2,), bias, dtype=torch.float64)
    gap = float(shift @ precision @ shift / 2) + (widen**2 - 1) - 2 * math.log(widen)
    exact = float(law.log_prob(x.double()).mean())  # type: ignore[no-untyped-call]
    assert gap > 0.3
    assert found["elbo"] == pytest.approx(exact - gap, abs=0.05)


def four_quarters() -> tuple[LatentModel, Tensor]:
    """Four images; z lies in the quarter of the plane that the image names, where its pixel is lit with P = 3/4."""
    images = (2 * torch.eye(4) - 1).reshape(4, 1, 2, 2)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    def posterior(x: Tensor, rng: torch.Generator) -> Tensor:
        return torch.randn(len(x), 2, generator=rng).abs() * signs[x.flatten(1).argmax(1)]

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
        right = (z.sign() == signs[x.flatten(1).argmax(1)]).all(1)
        return torch.where(right, math.log(3 / 4), math.log(1 / 12))

    return LatentModel(2, posterior, log_likelihood), images


def test_posteriors_that_share_the_prior_out() -> None:
    model, images = four_quarters()
    found = latent_scores(images.repeat(64, 1, 1, 1), model)
    assert found["posterior_kl"] == pytest.approx(math.log(4), abs=0.02)
    assert found["aggregate_kl"] == pytest.approx(0, abs=0.02)
    assert found["reconstruction"] == pytest.approx(-math.log(3 / 4), abs=1e-6)
    assert found["reconstruction_pixel"] == found["reconstruction"] / 4
    assert found["log_likelihood"] == pytest.approx(math.log(1 / 4), abs=0.01)  # 1/4 * 3/4 + 3/4 * 1/12
    assert found["importance_ess"] == 1  # nothing is sampled in the plane


def test_equal_samples_are_scored_once_and_weigh_as_often_as_they_come() -> None:
    model, images = four_quarters()
    asked: list[int] = []

    def posterior(x: Tensor, rng: torch.Generator) -> Tensor:
        asked.append(len(x))
        return model.posterior(x, rng)

    def log_likelihood(x: Tensor, z: Tensor) -> Tensor:  # the first image is better explained
        return torch.where(x.flatten(1).argmax(1) == 0, -1.0, -3.0)

    counted = LatentModel(2, posterior, log_likelihood)
    uneven = torch.cat([images[:1].repeat(30, 1, 1, 1), images[1:].repeat(10, 1, 1, 1)])
    found = latent_scores(uneven, counted, metrics=["reconstruction"])
    assert found["reconstruction"] == pytest.approx(0.5 * 1 + 0.5 * 3, abs=1e-6)
    assert sum(asked) == 4 * 20_000
    shares = latent_scores(uneven, counted, metrics=["aggregate_kl"])
    # half of q(z) in one quarter, the rest shared: KL(1/2, 1/6, 1/6, 1/6 || 1/4 each)
    assert shares["aggregate_kl"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=0.02)


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_asked() -> None:
    model, law = linear(3)
    x, state = drawn(law, 60), torch.get_rng_state()
    everything = latent_scores(x, model, seed=3)
    for name, value in everything.items():
        assert latent_scores(x, model, seed=3, metrics=[name]) == {name: value}
    other = latent_scores(x, model, seed=4)
    assert all(other[name] != value for name, value in everything.items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_broken_encoder_gives_nan_everywhere_and_one_without_spread_an_infinite_kl() -> None:
    model, law = linear(2)
    x = drawn(law, 20)
    broken = LatentModel(2, lambda x, rng: torch.full((len(x), 2), math.nan), model.log_likelihood)
    assert all(math.isnan(value) for value in latent_scores(x, broken).values())
    fixed = LatentModel(2, lambda x, rng: x[:, :2].contiguous(), model.log_likelihood)
    found = latent_scores(x, fixed)
    assert found["posterior_kl"] == found["aggregate_kl"] == math.inf
    assert found["elbo"] == -math.inf
    assert math.isfinite(found["reconstruction"])
    assert math.isfinite(found["log_likelihood"])


def test_what_needs_the_entropy_is_not_offered_in_many_dimensions(
    refusal: Callable[[Callable[[], object]], str],
) -> None:
    model, law = linear(9)
    x = drawn(law, 5)
    rest = ("log_likelihood", "importance_ess", "reconstruction", "reconstruction_pixel")
    assert latent.offered(8) == tuple(latent.LATENT_METRICS)
    assert set(latent_scores(x, model)) == set(latent.offered(9)) == set(rest)
    assert "'elbo' is not known" in refusal(lambda: latent_scores(x, model, metrics=["elbo"]))
    assert "did you mean 'reconstruction'" in refusal(lambda: latent_scores(x, model, metrics=["reconstructions"]))


def test_binary_images_are_those_of_minus_one_and_one() -> None:
    image = torch.tensor([1.0, -1.0, -1.0, 1.0]).reshape(1, 1, 2, 2)
    assert latent.is_binary(image)
    assert not latent.is_binary(torch.cat([image, 0.999 * image]))
    assert not latent.is_binary(torch.zeros(1, 1, 2, 2))
    assert set(latent.NEEDS_BINARY) <= set(latent.LATENT_METRICS)

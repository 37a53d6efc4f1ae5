"""Scores of a model with latents: how likely is held-out data, and how near are inferred latents to the prior?

    elbo             E_q log p(x|z) - KL(q(z|x), p(z)), the mean over x, from the two lines below
    log_likelihood   log p(x), the mean over x
    reconstruction   E_q [-log p(x|z)], summed over pixels; reconstruction_pixel: its mean over pixels
    posterior_kl     KL(q(z|x), p(z)), the mean over x
    aggregate_kl     KL(q(z), p(z)), q(z) the mean of q(z|x) over x: what samples from the prior miss

Nothing here asks the encoder for a density, and no adversary is believed. How each is measured, and how well:

log p(x), z in the plane   by the trapezoid rule on [-6, 6]^2, outside of which lie 4e-9 of the prior's mass. The step,
                           0.05 at first, is halved until that moves log p(x) by less than 0.001.
log p(x) otherwise         by importance sampling from a Gaussian with the moments of q(z|x), widened, mixed with the
                           prior, which bounds the weights. On average it is too low, never too high; the more so the
                           fewer of its samples count: importance_ess is their effective share (Kong 1992), the mean
                           over x, and below 0.01 or so log_likelihood says little.
KL                         the entropy of q by Kozachenko & Leonenko's nearest neighbours (k = 3) on whitened samples,
                           the rest by their mean. Error on Gaussian q with 256 samples: 0.03 in 2, 0.08 in 4, 0.06 in
                           8 dimensions, none of it more than 0.1 nat. Shapes far from a Gaussian look less far from
                           the prior than they are: a quarter of N(0, I), whose KL is log 4 = 1.39, by 0.03, 0.09 and
                           0.32 nat (20 000 samples: 0.01, 0.04, 0.11), four narrow clusters in 8 dimensions by 3 nats.
                           So an elbo above log_likelihood is an error of this kind; none above 8 dimensions.

Shapes   M held-out samples x (M, *X), Z latent coordinates, n samples for each x.   Unit   nats per sample x.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from saddlepoint.errors import unknown
from saddlepoint.metrics.subject import LatentModel

NEIGHBOURS = 3
AGGREGATE = 20_000  # samples of q(z), and the most of one q(z|x)
FEWEST = 256  # samples of one q(z|x)
POSTERIOR = 2**17  # samples of all q(z|x) together, unless FEWEST asks for more; fewer of images above 8x8
IMPORTANCE = 500  # samples for each x
WIDENED, FROM_PRIOR = 1.2, 0.1  # the proposal: times the standard deviation of q, and the share of the prior
REACH, STEPS, TOLERANCE, FINEST = 6.0, 240, 1e-3, 960  # of the quadrature
PAIRS = 2**22  # (x, z) of a quadrature; where the data has more, importance sampling
CALL, PIXELS = 2**16, 2**22  # the most samples in one call of the model, and the most of their pixels


@dataclass(frozen=True)
class LatentMetric:
    better: Literal["lower", "higher", "none"]
    cost: Literal["cheap", "costly"] = "cheap"
    largest_z_dim: int | None = None  # the most latent coordinates of which it is offered


LATENT_METRICS: Mapping[str, LatentMetric] = {
    "elbo": LatentMetric("higher", largest_z_dim=8),
    "log_likelihood": LatentMetric("higher", "costly"),
    "importance_ess": LatentMetric("none", "costly"),
    "reconstruction": LatentMetric("lower"),
    "reconstruction_pixel": LatentMetric("lower"),
    "posterior_kl": LatentMetric("none", largest_z_dim=8),
    "aggregate_kl": LatentMetric("lower", largest_z_dim=8),
}
NEEDS_BINARY = ("elbo", "log_likelihood")  # elsewhere a Bernoulli's p(x|z) is no probability


def offered(z_dim: int) -> tuple[str, ...]:
    """The names of the metrics that can be had of a model with so many latent coordinates."""
    return tuple(
        name for name, metric in LATENT_METRICS.items() if metric.largest_z_dim is None or z_dim <= metric.largest_z_dim
    )


def is_binary(images: Tensor) -> bool:
    """Whether every pixel is -1 or 1: only then is a Bernoulli's p(x|z) a probability."""
    return bool((images.abs() == 1).all())


@torch.no_grad()
def latent_scores(
    heldout: Tensor, model: LatentModel, seed: int = 0, metrics: Collection[str] | None = None
) -> dict[str, float]:
    """The metrics of LATENT_METRICS by name, by default all that are offered, on held-out samples (M, *X).

    Equal samples are scored once and weigh as often as they come. The same seed draws the same latents. All of them
    are NaN if an inferred latent is not finite; a q(z|x) without spread has the KL infinity.

    Raises:
        UserError: a metric that is unknown, or not offered with so many latent coordinates.
    """
    known = offered(model.z_dim)
    names = known if metrics is None else tuple(metrics)
    for name in names:
        if name not in known:
            raise unknown("objective.metric", name, known)
    measured = _Measured(model, seed, *_distinct(heldout))
    if not measured.z.isfinite().all():
        return dict.fromkeys(names, math.nan)
    return {name: float(getattr(measured, name)) for name in names}


def _distinct(heldout: Tensor) -> tuple[Tensor, Tensor]:
    """The samples that differ (R, *X), and the share of each (R,)."""
    x, counts = torch.unique(heldout, dim=0, return_counts=True)
    return x, counts.double() / len(heldout)


@dataclass(frozen=True, eq=False)
class _Measured:
    """Each metric as an attribute, computed when it is asked for, at most once."""

    model: LatentModel
    seed: int
    x: Tensor  # (R, *X)
    share: Tensor  # (R,) float64

    def mean(self, values: Tensor) -> float:
        """Of one value for each x (R,)."""
        return float((self.share * values).sum())

    def stream(self, purpose: int) -> torch.Generator:
        """Independent for each purpose, so that none shifts another's numbers."""
        state = np.random.SeedSequence([self.seed, purpose]).generate_state(1, np.uint64)
        return torch.Generator(self.x.device).manual_seed(int(state[0] >> 1))

    @cached_property
    def z(self) -> Tensor:
        """n samples of each q(z|x): (R, n, Z)."""
        together = POSTERIOR * 64 // max(64, self.x[0].numel())
        n = min(max(together // len(self.x), FEWEST), AGGREGATE)
        rng = self.stream(0)
        return _by_row(lambda x: self.model.posterior(x, rng), n, self.x)

    @cached_property
    def reconstruction(self) -> float:
        return -self.mean(_by_row(self.model.log_likelihood, self.z.shape[1], self.x, self.z).double().mean(1))

    @property
    def reconstruction_pixel(self) -> float:
        return self.reconstruction / self.x[0].numel()

    @cached_property
    def posterior_kl(self) -> float:
        return self.mean(torch.tensor([kl_to_prior(z) for z in self.z.cpu()], device=self.x.device))

    @property
    def elbo(self) -> float:
        return -self.reconstruction - self.posterior_kl

    @cached_property
    def aggregate_kl(self) -> float:
        quantiles = (torch.arange(AGGREGATE, dtype=torch.float64, device=self.x.device) + 0.5) / AGGREGATE
        rows = torch.searchsorted(self.share.cumsum(0), quantiles).clamp(max=len(self.x) - 1)
        rng = self.stream(1)
        return kl_to_prior(
            torch.cat([self.model.posterior(x, rng) for x in torch.split(self.x[rows], _most(self.x))]).cpu()
        )

    @cached_property
    def _log_p(self) -> tuple[Tensor, Tensor]:
        """log p(x) and the effective share of the samples behind it, each (R,)."""
        points = (STEPS + 1) ** self.model.z_dim
        if self.model.z_dim <= 2 and len(self.x) * points <= PAIRS:
            return by_quadrature(self.x, self.model), torch.ones_like(self.share)
        return by_importance(self.x, self.z, self.model, self.stream(2))

    @property
    def log_likelihood(self) -> float:
        return self.mean(self._log_p[0])

    @property
    def importance_ess(self) -> float:
        return self.mean(self._log_p[1])


def kl_to_prior(z: Tensor) -> float:
    """KL(q, N(0, I)) in nats, from samples of q (n, Z): Kozachenko & Leonenko (1987), as the module says."""
    from scipy.spatial import KDTree  # a moment to import, which most runs never need

    n, dimension = z.shape
    samples = z.double()
    centred = samples - samples.mean(0)
    factor, singular = torch.linalg.cholesky_ex(centred.T @ centred / (n - 1))
    if singular:
        return math.inf
    white = torch.linalg.solve_triangular(factor, centred.T, upper=False).T.numpy()
    radius = torch.from_numpy(KDTree(white).query(white, k=[NEIGHBOURS + 1])[0])  # the first is the sample itself
    ball = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
    counts = torch.digamma(torch.tensor([n, NEIGHBOURS], dtype=torch.float64))
    entropy = counts[0] - counts[1] + ball + dimension * radius.log().mean() + factor.diagonal().log().sum()
    return float(-_log_prior(samples).mean() - entropy)


def by_quadrature(x: Tensor, model: LatentModel) -> Tensor:
    """log p(x) (R,) of (R, *X), for one or two latent coordinates."""
    return torch.stack([_integral(row, model) for row in x])


def _integral(x: Tensor, model: LatentModel) -> Tensor:
    """log p(x) of one sample (*X): the integral of p(x|z) p(z) over z."""
    steps = STEPS
    while True:
        axis = torch.linspace(-REACH, REACH, steps + 1, dtype=torch.float64, device=x.device)
        z = torch.cartesian_prod(*[axis] * model.z_dim).reshape(-1, model.z_dim)
        likelihood = [
            model.log_likelihood(x.expand(len(part), *x.shape), part.float()) for part in torch.split(z, _most(x))
        ]
        joint = (torch.cat(likelihood).double() + _log_prior(z)).reshape([steps + 1] * model.z_dim)
        coarse = joint[(slice(None, None, 2),) * model.z_dim]
        step = model.z_dim * math.log(2 * REACH / steps)
        value = joint.flatten().logsumexp(0) + step
        moved = value - (coarse.flatten().logsumexp(0) + step + model.z_dim * math.log(2))
        if moved.abs() < TOLERANCE or steps >= FINEST:
            return value
        steps *= 2


def by_importance(
    x: Tensor, z: Tensor, model: LatentModel, rng: torch.Generator, n: int = IMPORTANCE
) -> tuple[Tensor, Tensor]:
    """log p(x) (R,) of (R, *X), and the effective share of the n samples, given samples z (R, m, Z) of q(z|x)."""
    values, shares = [], []
    for rows, inferred in zip(torch.split(x, _most(x, n)), torch.split(z, _most(x, n)), strict=True):
        proposed, log_r = _propose(inferred.double(), n, rng)
        log_p = _by_row(model.log_likelihood, n, rows, proposed.float()).double() + _log_prior(proposed)
        log_w = log_p - log_r
        values.append(log_w.logsumexp(1) - math.log(n))
        shares.append((2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp() / n)
    return torch.cat(values), torch.cat(shares)


def _propose(z: Tensor, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """n samples (R, n, Z) of the mixture of Gaussian and prior, and the log of its density (R, n)."""
    mean = z.mean(1, keepdim=True)
    covariance = WIDENED**2 * (z - mean).mT @ (z - mean) / (z.shape[1] - 1)
    factor = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(z.shape[2], dtype=z.dtype, device=z.device))
    normal = torch.randn(len(z), n, z.shape[2], dtype=z.dtype, device=z.device, generator=rng)
    widened = mean + normal @ factor.mT
    from_prior = torch.arange(n, device=z.device) < round(FROM_PRIOR * n)  # exactly this share of each
    proposed = torch.where(from_prior[:, None], normal, widened)
    standardised = torch.linalg.solve_triangular(factor, (proposed - mean).mT, upper=False).mT
    volume = factor.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
    gaussian = _log_prior(standardised) - volume + math.log(1 - FROM_PRIOR)
    return proposed, torch.logaddexp(gaussian, _log_prior(proposed) + math.log(FROM_PRIOR))


def _log_prior(z: Tensor) -> Tensor:
    """log N(z; 0, I) of (..., Z)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def _most(x: Tensor, n: int = 1) -> int:
    """How many x (B, *X) or (*X), each n times, the model is given at once."""
    return max(1, min(CALL, PIXELS // x[0].numel()) // n)


def _by_row(function: Callable[..., Tensor], n: int, *inputs: Tensor) -> Tensor:
    """function(x, z) of each x (R, *X) n times, beside its own n latents (R, n, Z) if they are given: (R, n, ...)."""
    values = []
    for x, *z in zip(*(torch.split(part, _most(inputs[0], n)) for part in inputs), strict=True):
        value = function(x.repeat_interleave(n, 0), *(latents.flatten(0, 1) for latents in z))
        values.append(value.reshape(len(x), n, *value.shape[1:]))
    return torch.cat(values)

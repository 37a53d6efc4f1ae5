"""Adversarial variational Bayes: Mescheder, Nowozin & Geiger (2017), arXiv:1701.04722, Algorithm 1.

Shapes   B batch, X the shape of one image, Z latent, E the encoder's noise.
         encoder: (B, *X), (B, E) -> z (B, Z), alone or with its moments: (z, mean, variance), each (B, Z)
         decoder: (B, Z) -> logits (B, *X)   adversary: (B, *X), (B, Z) -> T (B,)
Signs    T is the logit of "z was inferred from x" against "z is from the prior". At the optimum
         T = log q(z|x) - log p(z), and its mean over q(z|x) is their KL: with flipped labels the encoder would
         run away from the prior. All three printed steps are ascents.
Units    nats per image: the reconstruction is a sum over pixels.
Logged   elbo, reconstruction, kl: with the KL that T believes in, too large or too small while T lags, so
         never an objective.

The printed gradients of theta and phi are those of one loss, whose encoder is moved through T's input z, T itself
held fixed; the adversary sees z as a sample, without a gradient. All three move at once, on one batch and noise.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.optim import Adam

from ..errors import UserError
from .game import Batch, Count, Fraction, Game, Inference, Logs, Nets, Optimizer, Player, Positive, normal
from .latent import constant, log_bernoulli, log_normal, log_prior, means


@dataclass(frozen=True)
class Structure:
    z_dim: Count = 8
    eps_dim: Count = 64  # E
    k: Count = 1  # adversary moves in a round, the last of them together with encoder and decoder
    adaptive_contrast: bool = False  # section 4; the encoder then gives its moments


class Hyperparameters(NamedTuple):
    """The defaults are the authors' for MNIST with adaptive contrast: their code, experiments/avb_mnist_8_ac."""

    lr_primal: Positive = 5e-5
    lr_adversary: Positive = 1e-4
    beta1: Fraction = 0.5
    beta2: Fraction = 0.999


class Noise(NamedTuple):
    z: Tensor  # (B, Z), from the prior
    eps: Tensor  # (B, E)


def infer(nets: Nets, x: Tensor, eps: Tensor) -> Tensor:
    """z_phi(x, eps) (B, Z), a sample of q(z|x)."""
    inferred = nets.encoder(x, eps)
    return inferred if isinstance(inferred, Tensor) else inferred[0]


def primal_loss(nets: Nets, batch: Batch, noise: Noise, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """-E[log p(x|z) - T(x, z)]."""
    z = infer(nets, batch.x, noise.eps)
    return _negative_elbo(log_bernoulli(nets.decoder(z), batch.x), nets.adversary(batch.x, z))


def adversary_loss(nets: Nets, batch: Batch, noise: Noise, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """-E log sigma(T(x, z_phi)) - E log(1 - sigma(T(x, z))), z from the prior, independent of x."""
    z = infer(nets, batch.x, noise.eps)
    return _cross_entropy(nets.adversary(batch.x, z), nets.adversary(batch.x, noise.z)), {}


def standardise(nets: Nets, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z, (z - mean) / std, and log r(z) - log p(z), where r(z|x) = N(mean, diag(variance)) is held fixed."""
    inferred = nets.encoder(x, eps)
    if isinstance(inferred, Tensor):
        raise UserError("networks.encoder: adaptive_contrast needs z with its moments, as basis_encoder gives it")
    z, mean, variance = inferred[0], constant(inferred[1]), constant(inferred[2])
    return z, (z - mean) / variance.sqrt(), log_normal(z, mean, variance) - log_prior(z)


def adaptive_primal_loss(nets: Nets, batch: Batch, noise: Noise, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """With the KL as E[T + log r - log p]: T has only to find by what q differs from a Gaussian of its moments."""
    z, standard, log_ratio = standardise(nets, batch.x, noise.eps)
    return _negative_elbo(log_bernoulli(nets.decoder(z), batch.x), nets.adversary(batch.x, standard) + log_ratio)


def adaptive_adversary_loss(nets: Nets, batch: Batch, noise: Noise, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """The standardised z against N(0, I)."""
    _, standard, _ = standardise(nets, batch.x, noise.eps)
    return _cross_entropy(nets.adversary(batch.x, standard), nets.adversary(batch.x, noise.z)), {}


def _negative_elbo(log_likelihood: Tensor, kl: Tensor) -> tuple[Tensor, Logs]:
    reconstruction, kl = -log_likelihood.mean(), kl.mean()
    return reconstruction + kl, {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}


def _cross_entropy(inferred: Tensor, prior: Tensor) -> Tensor:
    return softplus(-inferred).mean() + softplus(prior).mean()


def game(s: Structure) -> Game:
    betas = ("beta1", "beta2")
    prior, source = normal(s.z_dim), normal(s.eps_dim)

    def noise(batch: int, rng: torch.Generator) -> Noise:
        return Noise(prior(batch, rng), source(batch, rng))

    primal = Player(
        owns=("encoder", "decoder"),
        loss=adaptive_primal_loss if s.adaptive_contrast else primal_loss,
        optimizer=Optimizer(Adam, lr="lr_primal", betas=betas),
    )
    adversary = Player(
        owns=("adversary",),
        loss=adaptive_adversary_loss if s.adaptive_contrast else adversary_loss,
        optimizer=Optimizer(Adam, lr="lr_adversary", betas=betas),
    )
    return Game(
        players={"primal": primal, "adversary": adversary},
        order=(("adversary",),) * (s.k - 1) + (("primal", "adversary"),),
        noise=noise,
        sample=lambda nets, z, y: means(nets.decoder(z)),
        latent=prior,
        inference=Inference(
            posterior=lambda nets, x, noise: infer(nets, x, noise.eps),
            log_likelihood=lambda nets, x, z: log_bernoulli(nets.decoder(z), x),
        ),
        ships=("decoder", "encoder"),
    )

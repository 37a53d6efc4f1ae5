"""Generative adversarial nets: Goodfellow et al. (2014), arXiv:1406.2661, Algorithm 1.

Shapes   B batch, Z latent, X the shape of one sample.
         generator: (B, Z) -> (B, *X)   discriminator: (B, *X) -> (B,)
Signs    the discriminator gives the logit T, D = sigmoid(T) = P(real | x); real = 1.
         At the optimum T = log p_r / p_g.
Logged   value: V(D, G) of equation 1, at most 2 JSD - 2 log 2 under the optimal D; never an objective.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn.functional import softplus
from torch.optim import Adam

from .game import Batch, Count, Fraction, Game, Logs, Nets, Optimizer, Player, Positive, normal


@dataclass(frozen=True)
class Structure:
    z_dim: Count = 64
    k: Count = 1  # discriminator moves in a round
    form: Literal["non_saturating", "minimax"] = "non_saturating"


class Hyperparameters(NamedTuple):
    """The defaults are DCGAN's: Radford, Metz & Chintala (2015), arXiv:1511.06434, section 4."""

    lr_discriminator: Positive = 2e-4
    lr_generator: Positive = 2e-4
    beta1: Fraction = 0.5
    beta2: Fraction = 0.999


def discriminator_loss(nets: Nets, batch: Batch, z: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """-V(D, G) = -E log D(x) - E log(1 - D(G(z))): cross-entropy on logits, summed over the two halves."""
    real, fake = nets.discriminator(batch.x), nets.discriminator(nets.generator(z))
    loss = softplus(-real).mean() + softplus(fake).mean()
    return loss, {"value": -loss}


def minimax(nets: Nets, batch: Batch, z: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """E log(1 - D(G(z))): equation 1; its gradient vanishes while D rejects with confidence."""
    return -softplus(nets.discriminator(nets.generator(z))).mean(), {}


def non_saturating(nets: Nets, batch: Batch, z: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    """-E log D(G(z)): section 3, the same fixed point with strong gradients early on."""
    return softplus(-nets.discriminator(nets.generator(z))).mean(), {}


GENERATOR_LOSS = {"non_saturating": non_saturating, "minimax": minimax}


def game(s: Structure) -> Game:
    betas = ("beta1", "beta2")
    discriminator = Player(
        owns=("discriminator",),
        loss=discriminator_loss,
        optimizer=Optimizer(Adam, lr="lr_discriminator", betas=betas),
    )
    generator = Player(
        owns=("generator",),
        loss=GENERATOR_LOSS[s.form],
        optimizer=Optimizer(Adam, lr="lr_generator", betas=betas),
    )
    return Game(
        players={"discriminator": discriminator, "generator": generator},
        order=(("discriminator",),) * s.k + (("generator",),),
        noise=normal(s.z_dim),
        sample=lambda nets, z, y: nets.generator(z),
    )

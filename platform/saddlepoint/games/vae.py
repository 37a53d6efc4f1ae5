"""Auto-encoding variational Bayes: Kingma & Welling (2014), arXiv:1312.6114, Algorithm 1, one sample (L = 1).

Shapes   B batch, Z latent, X the shape of one image.
         encoder: (B, *X) -> (mean, log variance), each (B, Z)   decoder: (B, Z) -> logits (B, *X)
Units    nats per image: the reconstruction is a sum over pixels.
Logged   elbo, reconstruction, kl: estimates on the batch, the kl in closed form.

One player, hence no game: the yardstick of adversarial variational Bayes.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.optim import Adam

from .game import Batch, Count, Fraction, Game, Inference, Logs, Nets, Optimizer, Player, Positive, normal
from .latent import log_bernoulli, means


@dataclass(frozen=True)
class Structure:
    z_dim: Count = 8


class Hyperparameters(NamedTuple):
    """Adam's published defaults (Kingma & Ba 2015, arXiv:1412.6980); the paper has Adagrad at 0.01 to 0.1."""

    lr: Positive = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999


def infer(nets: Nets, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z = mean + std * eps (equation 9), mean and log variance, each (B, Z)."""
    mean, log_variance = nets.encoder(x)
    return mean + (log_variance / 2).exp() * eps, mean, log_variance


def loss(nets: Nets, batch: Batch, eps: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    z, mean, log_variance = infer(nets, batch.x, eps)
    reconstruction = -log_bernoulli(nets.decoder(z), batch.x).mean()
    kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()  # appendix B
    return reconstruction + kl, {"elbo": -reconstruction - kl, "reconstruction": reconstruction, "kl": kl}


def game(s: Structure) -> Game:
    optimizer = Optimizer(Adam, lr="lr", betas=("beta1", "beta2"))
    return Game(
        players={"primal": Player(owns=("encoder", "decoder"), loss=loss, optimizer=optimizer)},
        order=(("primal",),),
        noise=normal(s.z_dim),
        sample=lambda nets, z, y: means(nets.decoder(z)),
        inference=Inference(
            posterior=lambda nets, x, eps: infer(nets, x, eps)[0],
            log_likelihood=lambda nets, x, z: log_bernoulli(nets.decoder(z), x),
        ),
        ships=("decoder", "encoder"),
    )

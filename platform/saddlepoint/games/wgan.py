"""Wasserstein GAN: Arjovsky, Chintala & Bottou (2017), arXiv:1701.07875, Algorithm 1.

Shapes   B batch, Z latent, X the shape of one sample.
         generator: (B, Z) -> (B, *X)   critic: (B, *X) -> (B,)
Signs    the critic is high on real samples; its step is an ascent there, so the loss here is the negative.
Logged   emd: the critic's estimate of K * EMD; K depends on the clip and on the nets, so it is no objective.

The printed loop `t = 0, ..., n_critic` is read as exactly n_critic steps, as the authors' code does.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.optim import RMSprop

from .game import Batch, Count, Game, Logs, Nets, Optimizer, Player, Positive, normal


@dataclass(frozen=True)
class Structure:
    z_dim: Count = 64
    n_critic: Count = 5


class Hyperparameters(NamedTuple):
    lr_critic: Positive = 5e-5  # alpha
    lr_generator: Positive = 5e-5  # alpha
    clip: Positive = 0.01  # c


def critic_loss(nets: Nets, batch: Batch, z: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    emd = nets.critic(batch.x).mean() - nets.critic(nets.generator(z)).mean()  # line 5; ascended there
    return -emd, {"emd": emd}


def generator_loss(nets: Nets, batch: Batch, z: Tensor, h: Hyperparameters) -> tuple[Tensor, Logs]:
    return -nets.critic(nets.generator(z)).mean(), {}  # line 10


def clip(weight: Tensor, h: Hyperparameters) -> Tensor:
    return weight.clamp(-h.clip, h.clip)  # line 7, after every critic step


def game(s: Structure) -> Game:
    critic = Player(owns=("critic",), loss=critic_loss, optimizer=Optimizer(RMSprop, lr="lr_critic"), project=clip)
    generator = Player(owns=("generator",), loss=generator_loss, optimizer=Optimizer(RMSprop, lr="lr_generator"))
    return Game(
        players={"critic": critic, "generator": generator},
        order=(("critic",),) * s.n_critic + (("generator",),),
        noise=normal(s.z_dim),
        sample=lambda nets, z, y: nets.generator(z),
    )

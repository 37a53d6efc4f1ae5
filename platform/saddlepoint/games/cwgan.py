"""The conditional Wasserstein GAN: `wgan` with the labels given to critic and generator, as `cgan` does it.

Shapes   generator: (B, Z), (B,) -> (B, *X)   critic: (B, *X), (B,) -> (B,)

The critic then bounds E_y EMD(p_r(x | y), p_g(x | y)), and not the distance of the marginals.
"""

from . import wgan
from .cgan import conditional
from .game import Game

Structure = wgan.Structure
Hyperparameters = wgan.Hyperparameters


def game(s: Structure) -> Game:
    return conditional(wgan.game(s))

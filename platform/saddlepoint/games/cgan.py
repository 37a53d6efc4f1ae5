"""Conditional generative adversarial nets: Mirza & Osindero (2014), arXiv:1411.1784, equation 2.

Shapes   B batch, Z latent, X the shape of one sample; labels y (B,).
         generator: (B, Z), (B,) -> (B, *X)   discriminator: (B, *X), (B,) -> (B,)

    min_G max_D  E log D(x | y) + E log(1 - D(G(z | y)))

is the GAN's game with y given to both players: pairs (x, y) come from the data, and G answers for the labels
of the batch. Any game whose networks judge and make single samples has such a form (`conditional`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from . import gan
from .game import Batch, Game, Logs, Loss, Nets, Player

Structure = gan.Structure
Hyperparameters = gan.Hyperparameters


def game(s: Structure) -> Game:
    return conditional(gan.game(s))


def conditional(game: Game) -> Game:
    """The same game with the labels as a further argument of every network."""

    def player(unconditional: Player) -> Player:
        return replace(unconditional, loss=_given_labels(unconditional.loss))

    sample = game.sample
    assert sample is not None  # what translates has no conditional form
    return replace(
        game,
        players={name: player(each) for name, each in game.players.items()},
        sample=lambda nets, z, y: sample(given(nets, y), z, y),
        needs="labels",
    )


def given(nets: Nets, y: Tensor | None) -> Nets:
    """The networks with y fixed: `given(nets, y).discriminator(x)` is `nets.discriminator(x, y)`."""

    def fixed(net: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *inputs: net(*inputs, y)

    return Nets({name: fixed(net) for name, net in vars(nets).items()})


def _given_labels(loss: Loss) -> Loss:
    def conditioned(nets: Nets, batch: Batch, noise: Any, h: Any) -> tuple[Tensor, Logs]:
        return loss(given(nets, batch.y), batch, noise, h)

    return conditioned

"""A generator as what the metrics look at."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..games import Game
from ..generator import Generator
from ..metrics.subject import LatentModel, Offers, Subject


def offers(game: Game, z_dim: int | None) -> Offers:
    """What subjects of this game will have."""
    return Offers(
        labels=game.needs == "labels",
        latent=z_dim if game.inference is not None else None,
        translate=bool(game.translate),
    )


def subject(generator: Generator, n: int, rng: torch.Generator) -> Subject:
    """n samples, or whatever else the game offers."""
    game = generator.game
    samples, labels = generator.draw(n, rng) if game.sample else (None, None)
    latent = None
    if game.inference is not None:
        latent = LatentModel(generator.card["z_dim"], generator.posterior, generator.log_likelihood)

    def way(direction: str) -> Callable[[Tensor], Tensor]:
        return lambda images: generator.translate(images, direction)

    return Subject(samples, labels, latent, {direction: way(direction) for direction in game.translate})

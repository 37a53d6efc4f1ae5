"""What is scored: samples, and the functions that a game with an encoder or a translator offers besides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Offers(NamedTuple):
    """What the subjects of one game have, known before there is one: it decides which metrics apply."""

    labels: bool = False  # samples are asked to be of a class
    latent: int | None = None  # Z, the latent coordinates of a game with an encoder
    translate: bool = False


@dataclass(frozen=True)
class LatentModel:
    """The latents behind a sample. Shapes: B samples x (B, *X) as in the data, Z latent coordinates; prior N(0, I)."""

    z_dim: int
    posterior: Callable[[Tensor, torch.Generator], Tensor]  # (x, rng) -> z (B, Z), drawn from q(z|x)
    log_likelihood: Callable[[Tensor, Tensor], Tensor]  # (x, z (B, Z)) -> log p(x|z) in nats (B,)


@dataclass(frozen=True, eq=False)
class Subject:
    """Which of its parts there are depends on the game: its offers."""

    samples: Tensor | None = None  # (n, *X)
    labels: Tensor | None = None  # (n,) the class that each sample was asked to be of
    latent: LatentModel | None = None
    translate: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # "x_to_y", "y_to_x"

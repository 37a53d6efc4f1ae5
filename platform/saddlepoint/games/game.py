"""The vocabulary in which one adversarial algorithm is written down: players, losses, and the order of moves.

A game is a description. It holds no weights, knows no device, logs nothing and never calls `backward`; the
ways of running it (plain, data-parallel, fused) read the same description. A file in this folder is one
paper's algorithm:

    Structure         what fixes shapes and control flow: a frozen dataclass, hashable
    Hyperparameters   what is an input to losses and optimisers: a NamedTuple of numbers, which may differ
                      between the lanes of one program
    game(structure)   the players and the order of moves
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from ..errors import UserError, unknown

Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]

Logs = dict[str, Tensor]  # name -> scalar, still on the device


class Batch(NamedTuple):
    """What one move sees of the data."""

    x: Tensor  # (B, *X)
    y: Tensor | None = None  # the labels of x (B,), or samples of a second domain (B, *Y)
    past: Tensor | None = None  # what the pool of the player gave for its fakes (B, *X): some are from earlier moves


class Nets:
    """The networks by name, as attributes: `nets.critic(x)`. Behind a name stands any callable on tensors."""

    def __init__(self, nets: Mapping[str, Callable[..., Tensor]]) -> None:
        self.__dict__.update(nets)

    def __getattr__(self, name: str) -> Callable[..., Tensor]:  # only reached for a name that is not there
        raise AttributeError(f"the game has no network {name!r}; its networks are {sorted(self.__dict__)}")


Setting = str | float


class Optimizer:
    """A rule of `torch.optim` and where its settings come from: a string names a hyperparameter, a number is
    itself.

    `Optimizer(Adam, lr="lr_generator", betas=("beta1", 0.999))`
    """

    def __init__(self, rule: type[torch.optim.Optimizer], **settings: Setting | tuple[Setting, ...]) -> None:
        self.rule = rule
        self.settings = settings

    def read(self, h: Any) -> dict[str, Any]:
        """The settings with each name replaced by its value in the hyperparameters `h`; UserError if it has none."""

        def value(setting: Setting) -> Any:
            if isinstance(setting, str) and not hasattr(h, setting):
                raise unknown(f"game: a setting of {self.rule.__name__}", setting, h._fields)
            return getattr(h, setting) if isinstance(setting, str) else setting

        return {
            name: tuple(value(part) for part in setting) if isinstance(setting, tuple) else value(setting)
            for name, setting in self.settings.items()
        }


Loss = Callable[[Nets, Batch, Any, Any], tuple[Tensor, Logs]]  # (nets, batch, noise, hyperparameters)
Project = Callable[[Tensor, Any], Tensor]  # (weight, hyperparameters) -> weight, elementwise
Noise = Callable[[int, torch.Generator], Any]  # (B, generator) -> what the losses take, on the generator's device


@dataclass(frozen=True)
class Pool:
    """Fakes of earlier moves, which a player sees in place of half of the new ones (`Batch.past`).

    Shrivastava et al. (2017), arXiv:1612.07828, section 2.3. The runner keeps it, seeded and in its checkpoints.
    """

    fakes: Callable[[Nets, Batch, Any], Tensor]  # (nets, batch, noise) -> (B, *X)
    size: int


@dataclass(frozen=True)
class Player:
    owns: tuple[str, ...]  # the networks that this loss moves; every other one is frozen meanwhile
    loss: Loss  # minimised
    optimizer: Optimizer
    project: Project | None = None  # of each weight, after every step
    pool: Pool | None = None


Move = tuple[str, ...]  # the players that move at once, on the same batch and noise, from the same weights
Needs = Literal["samples", "labels", "domains"]


@dataclass(frozen=True)
class Inference:
    """What a game with an encoder knows of the latents behind a sample."""

    posterior: Callable[[Nets, Tensor, Any], Tensor]  # (nets, x, noise) -> z (B, Z), drawn from q(z|x)
    log_likelihood: Callable[[Nets, Tensor, Tensor], Tensor]  # (nets, x, z) -> log p(x|z) in nats (B,)


@dataclass(frozen=True)
class Game:
    players: Mapping[str, Player]
    order: tuple[Move, ...]  # one round; each move draws a fresh batch and fresh noise
    noise: Noise  # of the losses
    sample: Callable[[Nets, Any, Tensor | None], Tensor] | None = None  # (nets, latent, labels) -> (B, *X)
    latent: Noise | None = None  # what `sample` takes; the noise of the losses if not given
    translate: Mapping[str, Callable[[Nets, Tensor], Tensor]] = field(default_factory=dict)  # by direction
    inference: Inference | None = None
    ships: tuple[str, ...] = ("generator",)  # the networks that use needs: averaged, scored, kept and shipped
    needs: Needs = "samples"  # of the data: also labels, or a second domain

    def __post_init__(self) -> None:
        for place, names, known in (
            ("the order of moves", {name for move in self.order for name in move}, self.players),
            ("ships", self.ships, self.networks),
        ):
            for name in names:
                if name not in known:
                    raise unknown(f"game: {place}", name, known)
        if self.sample is None and not self.translate:
            raise UserError("game: it has neither `sample` nor `translate`; nothing could be scored or shipped")

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for player in self.players.values() for name in player.owns))


def normal(*shape: int) -> Noise:
    """Standard normal noise of shape (B, *shape), on the device of the random generator."""
    return lambda batch, rng: torch.randn(batch, *shape, generator=rng, device=rng.device)


def silent(batch: int, rng: torch.Generator) -> None:
    """The noise of a game that needs none."""

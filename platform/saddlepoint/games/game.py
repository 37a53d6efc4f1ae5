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
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

Positive = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]

Logs = dict[str, Tensor]  # name -> scalar, still on the device


class Batch(NamedTuple):
    """What one move sees of the data."""

    x: Tensor  # (B, *X)
    y: Tensor | None = None  # the labels of x (B,), or samples of a second domain


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
        """The settings with each name replaced by its value in the hyperparameters `h`."""

        def value(setting: Setting) -> Any:
            return getattr(h, setting) if isinstance(setting, str) else setting

        return {
            name: tuple(value(part) for part in setting) if isinstance(setting, tuple) else value(setting)
            for name, setting in self.settings.items()
        }


Loss = Callable[[Nets, Batch, Any, Any], tuple[Tensor, Logs]]  # (nets, batch, noise, hyperparameters)
Project = Callable[[Tensor, Any], Tensor]  # (weight, hyperparameters) -> weight, elementwise
Noise = Callable[[int, torch.Generator], Any]  # (B, generator) -> what the losses take, on the generator's device


@dataclass(frozen=True)
class Player:
    owns: tuple[str, ...]  # the networks that this loss moves; every other one is frozen meanwhile
    loss: Loss  # minimised
    optimizer: Optimizer
    project: Project | None = None  # of each weight, after every step


Move = tuple[str, ...]  # the players that move at once, on the same batch and noise, from the same weights


@dataclass(frozen=True)
class Game:
    players: Mapping[str, Player]
    order: tuple[Move, ...]  # one round; each move draws a fresh batch and fresh noise
    noise: Noise
    sample: Callable[[Nets, Any], Tensor]  # (nets, noise) -> (B, *X)
    generator: str = "generator"  # the network that sampling needs: averaged, kept and shipped

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for player in self.players.values() for name in player.owns))


def normal(*shape: int) -> Noise:
    """Standard normal noise of shape (B, *shape), on the device of the random generator."""
    return lambda batch, rng: torch.randn(batch, *shape, generator=rng, device=rng.device)

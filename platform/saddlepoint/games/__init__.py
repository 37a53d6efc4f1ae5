"""What is played: one file is one paper's algorithm. No device, no log, no optimiser step here."""

import inspect
from types import ModuleType
from typing import Any, Protocol, cast

from ..errors import SaddleError, UserError, unknown
from ..imports import resolve
from . import avb, cgan, cwgan, cyclegan, gan, vae, wgan
from .cgan import conditional
from .game import (
    Batch,
    Count,
    Fraction,
    Game,
    Inference,
    Nets,
    Optimizer,
    Player,
    Pool,
    Positive,
    normal,
    silent,
)

__all__ = [
    "GAMES",
    "Algorithm",
    "Batch",
    "Count",
    "Fraction",
    "Game",
    "Inference",
    "Nets",
    "Optimizer",
    "Player",
    "Pool",
    "Positive",
    "build",
    "conditional",
    "find",
    "normal",
    "silent",
]


class Algorithm(Protocol):
    """What a game's module offers."""

    Structure: type[Any]
    Hyperparameters: type[Any]

    def game(self, s: Any) -> Game: ...


GAMES: dict[str, ModuleType] = {
    "gan": gan,
    "wgan": wgan,
    "cgan": cgan,
    "cwgan": cwgan,
    "cyclegan": cyclegan,
    "avb": avb,
    "vae": vae,
}


def find(name: str) -> Algorithm:
    """The algorithm by name, or one's own by the import path of its last function (`my_pkg.lsgan:game`)."""
    if name in GAMES:
        return cast(Algorithm, GAMES[name])
    if ":" not in name:
        raise unknown("game.name", name, [*GAMES, "my_module:game"])
    function = resolve("game.name", name)
    module = inspect.getmodule(function)
    missing = [part for part in ("Structure", "Hyperparameters", "game") if not hasattr(module, part)]
    if missing:
        raise UserError(
            f"game.name: the module of {name!r} has no {', '.join(missing)}; "
            "a game is a module with Structure, Hyperparameters and game(structure)"
        )
    return cast(Algorithm, module)


def build(name: str, structure: Any) -> Game:
    """The game of this structure. Raises UserError if one's own fails, or gives something else."""
    algorithm = find(name)
    try:
        made = algorithm.game(structure)
    except SaddleError:
        raise
    except Exception as error:
        if name in GAMES:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"game.name: {name!r} fails with {structure}: {reason}") from error
    if not isinstance(made, Game):
        raise UserError(f"game.name: {name!r} gives {type(made).__name__}, not a Game")
    return made

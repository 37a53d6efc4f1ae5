"""What is played: one file is one paper's algorithm. No device, no log, no optimiser step here."""

import inspect
from types import ModuleType
from typing import Any, Protocol, cast

from ..errors import UserError, unknown
from ..imports import resolve
from . import gan, wgan
from .game import Batch, Game, Nets, Optimizer, Player, normal

__all__ = ["GAMES", "Algorithm", "Batch", "Game", "Nets", "Optimizer", "Player", "find", "normal"]


class Algorithm(Protocol):
    """What a game's module offers."""

    Structure: type[Any]
    Hyperparameters: type[Any]

    def game(self, s: Any) -> Game: ...


GAMES: dict[str, ModuleType] = {"gan": gan, "wgan": wgan}


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

"""The reigns of an alias: every move is written down, and the last can be taken back.

Each move is one tag of the registered model, `saddle.alias.ALIAS.0007`, written *before* the alias is set. The alias is
the truth. A move whose tag stands there while the alias still is where it was never happened (the command was killed in
between), and repeating the command makes it; an alias that is elsewhere was moved by hand, which counts as a reign too.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Literal

from ..errors import SaddleError
from ..tracking import registry

How = Literal["promoted", "forced", "rolled back"]
STORY_TAG = "saddle.promotion"  # of a version: in a sentence, what was decided about it last


@dataclass(frozen=True)
class Move:
    version: int  # that bears the alias from now on
    before: int | None  # that bore it until now
    how: How
    why: str
    at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Rollback:
    model: str
    alias: str
    version: int  # reigns again
    before: int  # reigned until now


def rollback(model: str, alias: str = "champion", tracking_uri: str | None = None) -> Rollback:
    """Gives the alias back to the version that bore it before; repeated, to the one before that.

    The version that loses it is not promoted again but by force, nor are later ones compared with it.

    Raises:
        UserError: no such model or alias.
        SaddleError: no version reigned before.
    """
    now = registry.reigning(tracking_uri, model, alias).version
    existing = {known.version for known in registry.models(tracking_uri, model)}
    past = reigns(history(tracking_uri, model, alias, now), now)
    left = [version for version, _ in groupby(version for version in past if version in existing)]
    if len(left) < 2:
        raise SaddleError(f"{model}: no version was {alias} before version {now}; there is nothing to roll back to")
    back = left[-2]
    why = f"rolled back to version {back}"
    move(tracking_uri, model, alias, back, before=now, how="rolled back", why=why)
    registry.tag_version(tracking_uri, model, now, {STORY_TAG: why})
    return Rollback(model, alias, back, now)


def move(uri: str | None, model: str, alias: str, version: int, *, before: int | None, how: How, why: str) -> None:
    """Writes the move down, then makes it."""
    number = max(_written(uri, model, alias), default=0) + 1
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Move(version, before, how, why, at)
    registry.tag_model(uri, model, {f"{_prefix(alias)}{number:04d}": json.dumps(asdict(entry))})
    registry.set_alias(uri, model, alias, version)


def history(uri: str | None, model: str, alias: str, now: int | None) -> list[Move]:
    """The moves that happened, oldest first; `now`: the version that bears the alias."""
    return happened(list(_written(uri, model, alias).values()), now)


def happened(moves: Sequence[Move], now: int | None) -> list[Move]:
    """Without those after which the alias was still where it had been."""
    seen = [after.before for _, after in pairwise(moves)] + [now]
    return [made for made, then in zip(moves, seen, strict=False) if then != made.before]


def reigns(moves: Sequence[Move], now: int | None) -> list[int]:
    """Who would reign again, the last first to go: the stack of versions, of which `now` is the top.

    1, 3 and 4 were promoted: [1, 3, 4]. 4 was rolled back: [1, 3]. Somebody set the alias to 2: [1, 3, 2].
    """
    stack: list[int] = []

    def reach(version: int | None) -> None:
        if version is not None and stack[-1:] != [version]:
            stack.append(version)

    for made in moves:
        reach(made.before)
        if made.how == "rolled back":
            while stack and stack[-1] != made.version:
                stack.pop()
        reach(made.version)
    reach(now)
    return stack


def taken_back(moves: Sequence[Move], version: int) -> Move | None:
    """The rollback that ended this version's last reign, if one did."""
    last = [made for made in moves if version in (made.version, made.before)][-1:]
    return last[0] if last and last[0].how == "rolled back" and last[0].before == version else None


def _written(uri: str | None, model: str, alias: str) -> dict[int, Move]:
    """The journal by number, in order."""
    found = {}
    for tag, value in registry.model_tags(uri, model).items():
        if match := re.fullmatch(re.escape(_prefix(alias)) + r"(\d+)", tag):
            found[int(match[1])] = Move(**json.loads(value))
    return dict(sorted(found.items()))


def _prefix(alias: str) -> str:
    return f"saddle.alias.{alias}."

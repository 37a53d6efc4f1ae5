"""What can go wrong, by whose hand. The command line turns these into one line on stderr and an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class SaddleError(Exception):
    """The work failed though the input was right (exit code 1): one sentence, for a person."""

    exit_code = 1


class UserError(SaddleError):
    """The user's input is wrong (exit code 2): the message names the key, the value and what would be right."""

    exit_code = 2


def unknown(key: str, value: object, known: Iterable[object]) -> UserError:
    """The error for a name that does not exist: with the nearest name that does, or all of them if few."""
    names = sorted(str(name) for name in known)
    near = get_close_matches(str(value), names, n=1, cutoff=0.6)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif len(names) <= 12:
        hint = f"known: {', '.join(names) or 'none'}"
    else:
        hint = f"known: {', '.join(names[:12])} and {len(names) - 12} more"
    return UserError(f"{key}: {value!r} is not known; {hint}")

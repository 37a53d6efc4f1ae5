"""A user's own nets, data and games by import path: `my_pkg.nets:Critic`. Nothing needs registering."""

import importlib
import os
import sys

from saddlepoint.errors import UserError, unknown


def resolve(key: str, path: str) -> object:
    """The object that `path` = "module:attribute" names; the attribute may be dotted (`nets:Critic.small`).

    The working folder goes to the front of `sys.path`, as `python -m` puts it: users' own modules lie there.

    Args:
        key: where the path stood in the user's input, for the message ("networks.critic").

    Raises:
        UserError: not of this form; no such module; the module fails while it is imported; no such attribute.
    """
    name, colon, attribute = path.partition(":")
    if not colon or not all(part.isidentifier() for part in [*name.split("."), *attribute.split(".")]):
        raise UserError(f"{key}: {path!r} is not an import path; write it as my_package.my_module:my_name")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the module may be younger than the finder's listing of its folder
    try:
        owner: object = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}: {path!r}: there is no module {error.name!r}, here or installed") from error
        raise _fails(key, path, name, error) from error
    except (Exception, SystemExit) as error:  # a script without a main guard may well call sys.exit
        raise _fails(key, path, name, error) from error
    for part in attribute.split("."):
        if not hasattr(owner, part):
            public = [known for known in dir(owner) if not known.startswith("_")]
            raise unknown(f"{key}: {path!r}", part, public)
        owner = getattr(owner, part)
    return owner


def _fails(key: str, path: str, module: str, error: BaseException) -> UserError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return UserError(f"{key}: {path!r}: module {module!r} fails while it is imported: {reason}")

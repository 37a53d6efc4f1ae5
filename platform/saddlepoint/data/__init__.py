"""What a game is played over: sets of two halves, training and held-out; one's own by import path."""

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from saddlepoint.data.dataset import Dataset, Kind, Mixture
from saddlepoint.data.digits import digits
from saddlepoint.data.image_folder import image_folder
from saddlepoint.data.mixtures import grid, ring
from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.imports import resolve

__all__ = ["DATASETS", "Dataset", "Kind", "Mixture", "load"]

DATASETS: Mapping[str, Callable[..., Dataset]] = {
    "digits": digits,
    "ring": ring,
    "grid": grid,
    "image_folder": image_folder,
}


def load(name: str, /, **options: object) -> Dataset:
    """The data set `name`: one of DATASETS, or "module:function" for one's own function returning a Dataset.

    Raises:
        UserError: an unknown name; an option that the function does not have, that it misses, or whose value
            it cannot take; one's own function fails or returns something else.
    """
    if name in DATASETS:
        function = DATASETS[name]
    elif ":" in name:
        function = _own(name)
    else:
        raise unknown("data.name", name, [*DATASETS, "my_module:my_function"])
    _check(name, function, options)
    try:
        dataset = function(**options)
    except SaddleError:
        raise
    except Exception as error:
        if name in DATASETS:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"data.name: {name!r} fails: {reason}") from error
    if not isinstance(dataset, Dataset):
        raise UserError(f"data.name: {name!r} returns {type(dataset).__name__}; it must return a Dataset")
    return dataset


def _own(name: str) -> Callable[..., Dataset]:
    function = resolve("data.name", name)
    if not callable(function):
        raise UserError(f"data.name: {name!r} is {type(function).__name__}; it must be a function")
    return function


def _check(name: str, function: Callable[..., Dataset], options: Mapping[str, object]) -> None:
    """That `options` fit the signature of `function`: names, what is required, annotated plain types."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that exists for type checkers only
        signature = inspect.signature(function)
    parameters = signature.parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for option, value in options.items():
        if option not in named and not open_ended:
            raise unknown(f"data.{option}", option, named)
        annotation = named[option].annotation if option in named else Any
        if not _fits(value, annotation):
            wanted = inspect.formatannotation(annotation)
            raise UserError(f"data.{option}: {value!r} is {type(value).__name__}; {name} takes {wanted}")
    for option, parameter in named.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"data.{option}: missing; {name} needs it")


def _fits(value: object, annotation: Any) -> bool:
    """Whether a value suits an annotation; what is not a plain type is the function's own to judge."""
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in get_args(annotation))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool, Path, type(None)):
        return isinstance(value, annotation)
    return True

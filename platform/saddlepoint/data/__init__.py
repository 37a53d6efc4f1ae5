"""What a game is played over: sets of two halves, training and held-out; one's own by import path."""

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from saddlepoint.data.dataset import Dataset, Kind, Mixture, Stream, join
from saddlepoint.data.digits import digits
from saddlepoint.data.four_points import four_points
from saddlepoint.data.image_folder import image_folder, image_folder_files
from saddlepoint.data.images import FileSet
from saddlepoint.data.mixtures import grid, ring
from saddlepoint.data.parquet import parquet
from saddlepoint.data.unpaired import digits_pairs, unpaired_folder, unpaired_folder_files
from saddlepoint.data.vision import celeba, celeba_files, cifar10, fashion_mnist, mnist
from saddlepoint.errors import SaddleError, UserError, unknown
from saddlepoint.imports import resolve

__all__ = ["DATASETS", "FILES", "Dataset", "FileSet", "Kind", "Mixture", "Stream", "image_files", "join", "load"]


def unpaired(x: Mapping[str, Any], y: Mapping[str, Any], paired: bool = False) -> Dataset:
    """Any two data sets as the domains of a translation, each by its name and options: {"name": "parquet", ...}.

    `paired`: the held-out halves are, row by row.
    """
    return join("unpaired", _domain("x", x), _domain("y", y), paired=paired)


def _domain(side: str, options: Mapping[str, Any]) -> Dataset:
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise UserError(f"data.{side}: {options!r} cannot be; it must be a data set's name and options")
    try:
        return load(options["name"], **{key: value for key, value in options.items() if key != "name"})
    except SaddleError as error:  # it speaks of data.path, and means data.x.path
        raise type(error)(str(error).replace("data.", f"data.{side}.", 1)) from error


DATASETS: Mapping[str, Callable[..., Dataset]] = {
    "digits": digits,
    "digits_pairs": digits_pairs,
    "ring": ring,
    "grid": grid,
    "four_points": four_points,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "celeba": celeba,
    "image_folder": image_folder,
    "unpaired_folder": unpaired_folder,
    "unpaired": unpaired,
    "parquet": parquet,
}

# of the sets that are made of image files: what opens them without reading one; one set, or two domains
FILES: Mapping[str, Callable[..., FileSet | tuple[FileSet, FileSet]]] = {
    "celeba": celeba_files,
    "image_folder": image_folder_files,
    "unpaired_folder": unpaired_folder_files,
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


def image_files(name: str, /, **options: object) -> tuple[FileSet, ...]:
    """The data set `name` of FILES, unread: one set, or the two domains. Raises UserError as `load`."""
    _check(name, FILES[name], options)
    found = FILES[name](**options)
    return (found,) if isinstance(found, FileSet) else found


def _own(name: str) -> Callable[..., Dataset]:
    function = resolve("data.name", name)
    if not callable(function):
        raise UserError(f"data.name: {name!r} is {type(function).__name__}; it must be a function")
    return function


def _check(name: str, function: Callable[..., object], options: Mapping[str, object]) -> None:
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

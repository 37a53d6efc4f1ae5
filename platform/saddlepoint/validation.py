"""From a file to checked types: YAML without its traps, and pydantic's errors as one line for a person."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from saddlepoint.errors import UserError, unknown

_Model = TypeVar("_Model", bound=BaseModel)
_shortened = Repr()
_shortened.maxstring = _shortened.maxother = 60


class Strict(BaseModel):
    """A frozen model whose unknown keys are errors that name the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for key in data if isinstance(data, Mapping) else ():
            if key not in known:
                raise stranger("", key, known)
        return data


def wrong(key: str, value: object, right: str) -> PydanticCustomError:
    """For a model's own validators: `value`, in the field `key` ("": the whole), is not what `right` says."""
    return PydanticCustomError("wrong", "{line}", {"key": key, "line": f"{_shortened.repr(value)} {right}"})


def stranger(key: str, value: object, known: Any) -> PydanticCustomError:
    """For a model's own validators: the name `value` under `key` is none of `known`."""
    return PydanticCustomError("stranger", "unknown name", {"key": key, "value": value, "known": list(known)})


def checked(model: type[_Model], data: Any, where: str) -> _Model:
    """`data` as a `model`; raises UserError with the first thing that is wrong, `where` naming the file."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explain(error, where, data) from None


def explain(error: ValidationError, where: str, data: object = None) -> UserError:
    """The first of pydantic's errors as one line: where, key path, value, what would be right.

    `data` is what was validated; with it the path holds only keys that the user wrote, without the names that
    pydantic inserts for the members of a union.
    """
    first = error.errors(include_url=False)[0]
    kind, context, message = first["type"], first.get("ctx", {}), first["msg"]
    path = _path(first["loc"], data, missing=kind == "missing")

    def line(text: str, key: str = "") -> UserError:
        return UserError(f"{place(key)}: {text}")

    def place(key: str) -> str:
        return ": ".join(part for part in (where, ".".join([*path, key] if key else path)) if part)

    match kind:
        case "wrong":
            return line(context["line"], context["key"])
        case "stranger":
            return unknown(place(context["key"]), context["value"], context["known"])
        case "union_tag_invalid":
            tags = re.findall(r"'([^']*)'", context["expected_tags"])
            return unknown(place(context["discriminator"].strip("'")), context["tag"], tags)
        case "union_tag_not_found":
            return line(f"the key {context['discriminator']} is missing")
        case "missing":
            return line("is missing")
        case "extra_forbidden":
            return line("is not a known key")
        case "model_type" | "model_attributes_type" | "dict_type":
            return line(f"{_shortened.repr(first['input'])} should be keys and values")
    if message.startswith("Input should"):
        return line(f"{_shortened.repr(first['input'])} {message.removeprefix('Input ')}")
    return line(message.removeprefix("Value error, "))


def _path(loc: Sequence[int | str], data: object, *, missing: bool) -> list[str]:
    path, node = [], data
    for position, part in enumerate(loc):
        inside = (isinstance(node, Mapping) and part in node) or (
            isinstance(node, Sequence) and isinstance(part, int) and part < len(node)
        )
        if inside:
            node = node[part]  # type: ignore[index]
        # What the data lack is the name of a union's member, unless it is the very key that is missing.
        if inside or data is None or (missing and position == len(loc) - 1):
            path.append(str(part))
    return path


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` it is meant to be, say "pipeline", goes into the UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{what}: {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{what}: {path} cannot be read: {reason}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        found = {type(None): "nothing", list: "a list"}.get(type(content), _shortened.repr(content))
        raise UserError(f"{path}: a {what} holds keys and values, this file holds {found}")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises UserError, with the line, if it is not YAML or a key stands twice."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        prefix = "" if isinstance(error, yaml.constructor.ConstructorError) else "not YAML: "
        raise UserError(f"{where}: {place}{prefix}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise UserError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 5e-5 is a number (PyYAML wants 5.0e-5) and no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# The parent's table is replaced, not changed: nobody else's YAML reads differently for it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?   # 1.  1.5  1.5e3
          |\d[\d_]*[eE][-+]?\d+                          # 1e3  5e-5
          |\.\d[\d_]*(?:[eE][-+]?\d+)?                   # .5  .5e-3
          |\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)

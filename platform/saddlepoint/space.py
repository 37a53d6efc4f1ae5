"""Search spaces: which parameters vary, over what, and the published default of each, as read from YAML.

    game: wgan
    parameters:
      lr_critic: {type: log_float, low: 1e-5, high: 1e-2, default: 5e-5}
      n_critic:  {type: choice, choices: [1, 2, 5], default: 5}
      clip:      {type: log_float, low: 0.003, high: 0.3, default: 0.01, when: {n_critic: [2, 5]}}

A bare name is a hyperparameter or a structure field of the game; a dotted name is a path into the pipeline
(`training.batch_size`). `when` makes a parameter exist only for the given values of another one. The defaults
run first, as trial 0, so a default always lies inside its range.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, model_validator

from saddlepoint.validation import Strict, checked, read_yaml, stranger, wrong


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise wrong("", value, "should be a number, a word, true, false or null")
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Scalar = Annotated[Any, AfterValidator(_scalar)]
Number = Annotated[float, Field(strict=True)]  # strict: true and "5" are no numbers


class _Parameter(Strict):
    when: dict[str, Annotated[list[Scalar], BeforeValidator(_listed)]] = Field(default_factory=dict)


class FloatRange(_Parameter):
    """Real numbers from `low` to `high`, both included; `log_float`: evenly in the logarithm."""

    type: Literal["float", "log_float"]
    low: Number
    high: Number
    default: Number

    @property
    def log(self) -> bool:
        return self.type == "log_float"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self)
        return self

    def contains(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def corners(self) -> list[Any]:
        return [self.low, self.high]


class IntRange(_Parameter):
    """Whole numbers from `low` to `high`, both included."""

    type: Literal["int"]
    low: StrictInt
    high: StrictInt
    default: StrictInt
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self)
        return self

    def contains(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def corners(self) -> list[Any]:
        return [self.low, self.high]


def _check_range(range_: FloatRange | IntRange) -> None:
    low, high, default = range_.low, range_.high, range_.default
    if not low < high:
        raise wrong("low", low, f"should be less than high, {high} (for one value alone: type fixed)")
    if range_.log and low <= 0:
        raise wrong("low", low, "should be greater than 0 in a log range")
    if not range_.contains(default):
        raise wrong("default", default, f"should lie within {low} to {high}; extend the range to hold it")


class Choice(_Parameter):
    """One of several values without an order."""

    type: Literal["choice"]
    choices: list[Scalar]
    default: Scalar

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.choices) < 2:
            raise wrong("choices", self.choices, "should hold two values or more (for one value: type fixed)")
        for position, choice in enumerate(self.choices):
            if choice in self.choices[:position]:
                raise wrong("choices", self.choices, f"should hold {choice!r} once")
        if not self.contains(self.default):
            raise wrong("default", self.default, f"should be one of the choices, {self.choices}")
        return self

    def contains(self, value: object) -> bool:
        return value in self.choices

    def corners(self) -> list[Any]:
        return list(self.choices)


class Fixed(_Parameter):
    """One value, for every trial: in place of what the pipeline or the game would use."""

    type: Literal["fixed"]
    value: Any

    @property
    def default(self) -> Any:
        return self.value

    def contains(self, value: object) -> bool:
        return bool(value == self.value)

    def corners(self) -> list[Any]:
        return []


Parameter = FloatRange | IntRange | Choice | Fixed


class Space(Strict):
    """The search space of one game: parameters by name, some of them only under a condition."""

    game: str
    parameters: dict[str, Annotated[Parameter, Field(discriminator="type")]]

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a YAML file. Raises UserError with one line on whatever is wrong in it."""
        return checked(cls, read_yaml(Path(path), "search space"), str(path))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, parameter in self.parameters.items():
            for other, allowed in parameter.when.items():
                key = f"parameters.{name}.when"
                if other not in self.parameters:
                    raise stranger(key, other, self.parameters)
                condition = self.parameters[other]
                if isinstance(condition, FloatRange):
                    raise wrong(key, other, f"should not be a {condition.type}; a condition needs exact values")
                for value in allowed:
                    if not condition.contains(value):
                        raise wrong(f"{key}.{other}", value, f"is no value that {other} can take")
                if not allowed:
                    raise wrong(f"{key}.{other}", allowed, f"should name a value of {other}")
        try:
            self._order  # noqa: B018 (computed here so that a cycle is found while the file is read)
        except CycleError as cycle:
            raise wrong("parameters", " -> ".join(cycle.args[1]), "should not go round in `when`") from None
        return self

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """Every parameter after those that its `when` names."""
        return tuple(TopologicalSorter({name: p.when for name, p in self.parameters.items()}).static_order())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parameters)

    def walk(self, suggest: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """One configuration, define-by-run: each active parameter in turn is asked for.

        A parameter whose condition does not hold is left out; a fixed one is set without asking.
        """
        values: dict[str, Any] = {}
        for name in self._order:
            parameter = self.parameters[name]
            if all(other in values and values[other] in allowed for other, allowed in parameter.when.items()):
                values[name] = parameter.value if isinstance(parameter, Fixed) else suggest(name, parameter)
        return values

    def defaults(self) -> dict[str, Any]:
        """The published configuration."""
        return self.around({})

    def corners(self) -> list[dict[str, Any]]:
        """The defaults, then each end of each range and each choice in turn, the rest at the defaults.

        What a dry run tries: a configuration that cannot be built is found before anything is started.
        """
        corners = [self.defaults()]
        for name, parameter in self.parameters.items():
            for value in parameter.corners():
                corner = self.around({**self._activating(name), name: value})
                if corner not in corners:
                    corners.append(corner)
        return corners

    def around(self, pinned: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults, but for these values; what their conditions leave out is not in it."""
        return self.walk(lambda name, parameter: pinned.get(name, parameter.default))

    def _activating(self, name: str) -> dict[str, Any]:
        """Values of other parameters under which `name` is active, the defaults where they do."""
        pinned: dict[str, Any] = {}
        for other, allowed in self.parameters[name].when.items():
            default = self.parameters[other].default
            pinned |= self._activating(other) | {other: default if default in allowed else allowed[0]}
        return pinned

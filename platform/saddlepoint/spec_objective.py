"""What a pipeline says of its objective, as validated types."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from .errors import UserError, unknown
from .metrics.catalogue import METRICS, Metric
from .metrics.objective import Bound, Objective
from .validation import Strict, wrong


class BoundSpec(Strict):
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            raise wrong("", {}, "should give at_least, at_most or both")
        if low is not None and high is not None and not low < high:
            raise wrong("at_least", low, f"should be less than at_most, {high}")
        return self


class ObjectiveSpec(Strict):
    metric: str = "fid"
    second: str | None = None  # of two metrics the search seeks the Pareto front
    constraints: dict[str, BoundSpec] = Field(default_factory=dict)  # {recall: {at_least: 0.5}}
    samples: Annotated[int, Field(ge=2)] | None = None  # n of every score; the most that both halves allow if not given
    features: str = "auto"
    feature_weights: str | None = None

    def built(self) -> Objective:
        bounds = (
            Bound(
                name,
                -math.inf if bound.at_least is None else bound.at_least,
                math.inf if bound.at_most is None else bound.at_most,
            )
            for name, bound in self.constraints.items()
        )
        return Objective.of(self.metric, self.second, *bounds)

    def check(self) -> None:
        for key, name in (("metric", self.metric), ("second", self.second)):
            if name is not None and _metric(f"objective.{key}", name).better == "none":
                raise UserError(f"objective.{key}: {name!r} has no better direction to search in")
        if self.second == self.metric:
            raise UserError(f"objective.second: {self.second!r} is the first metric already; name another, or none")
        for name in self.constraints:
            if _metric(f"objective.constraints.{name}", name).per_class:
                raise UserError(f"objective.constraints.{name}: is one number for each class; bound class_tv instead")


def _metric(key: str, name: str) -> Metric:
    if name not in METRICS:
        raise unknown(key, name, METRICS)
    return METRICS[name]

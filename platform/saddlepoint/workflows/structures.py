"""The distinct programs that a search space reaches: one for each structure, whatever its numbers are.

Two configurations with equal structure, networks, batch size and so on differ in numbers alone: they are built the
same, cost the same, and fail to fit the data alike. So each structure is tried once, with the numbers at the defaults.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ..space import Space
from ..spec import Pipeline

MOST = 64  # structures to try: a product of many choices explodes; beyond it, each choice is tried in turn


def structures(pipeline: Pipeline) -> list[tuple[dict[str, Any], Pipeline]]:
    """The values of each structure and the trial that they make; the pipeline's own values, {}, are the first."""
    found: dict[str, tuple[dict[str, Any], Pipeline]] = {}
    for values in ({}, *(reachable(pipeline, pipeline.search.space) if pipeline.search else ())):
        trial = pipeline.with_values(values)
        found.setdefault(_program(trial), (values, trial))
    return list(found.values())


def reachable(pipeline: Pipeline, space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of the ends of all parameters that shape a program, the others at their defaults; where those
    are more than MOST, the defaults with each end in turn."""
    shaping = [name for name in space.names if pipeline.shapes(name) and space.parameters[name].corners()]
    choices = {name: space.parameters[name].corners() for name in shaping}
    count = 1
    for ends in choices.values():
        count *= len(ends)
    if count > MOST:
        yield from space.corners()
        return
    yield space.defaults()
    for combination in product(*choices.values()):
        pinned = dict(zip(choices, combination, strict=True))
        yield space.around(pinned)


def _program(trial: Pipeline) -> str:
    """What decides what is built and run, as one text."""
    content: Mapping[str, Any] = trial.content()
    parts = {key: content[key] for key in ("data", "networks", "training")}
    return json.dumps([parts, str(trial.structure())], sort_keys=True)

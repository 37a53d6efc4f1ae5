"""What the ledger gives out: suggestions to run, and records of what became of them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a trial ends.

    DIVERGED and OUT_OF_MEMORY are properties of the configuration: the sampler learns from them to stay away. FAILED
    is an error of the code or of the machine, from which it learns nothing. A DUPLICATE of a trial that there is was
    never run, and does not count.
    """

    COMPLETE = "complete"
    PRUNED = "pruned"  # on the ledger's advice
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Suggestion:
    """A configuration to run. `seed` is its training seed; `resumed`: it was begun in an earlier life."""

    number: int
    values: dict[str, Any]
    seed: int
    resumed: bool


@dataclass(frozen=True)
class TrialRecord:
    """What the ledger knows of one trial; `value` is the objective's metric of a complete one, otherwise None."""

    number: int
    values: dict[str, Any]
    seed: int
    state: str  # "waiting", "running" or an Outcome
    value: float | None
    scores: dict[str, float]  # of a complete one: each metric of the objective, constraints included
    feasible: bool  # complete, and within all bounds
    intermediate: dict[int, float]  # step (round): value of the objective's metric
    curves: dict[str, dict[int, float]]  # the same of each metric of the objective
    reason: str | None
    run_id: str | None
    attrs: dict[str, Any]
    started: datetime | None
    ended: datetime | None
    inside: bool = True  # of the space as it is now; it may have been changed since the trial ran

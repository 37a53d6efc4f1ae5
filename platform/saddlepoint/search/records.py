"""What the ledger gives out: suggestions to run, and records of what became of them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a trial ends: PRUNED on the ledger's advice, DIVERGED by itself, FAILED by an error."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Suggestion:
    """A configuration to run. `seed` is its training seed; `resumed`: it was begun in an earlier life."""

    number: int
    values: dict[str, Any]
    seed: int
    resumed: bool


@dataclass(frozen=True)
class TrialRecord:
    """What the ledger knows of one trial; `value` is the objective of a complete one, otherwise None."""

    number: int
    values: dict[str, Any]
    seed: int
    state: str  # "waiting", "running" or an Outcome
    value: float | None
    intermediate: dict[int, float]  # step (round): value
    reason: str | None
    run_id: str | None
    attrs: dict[str, Any]
    started: datetime | None
    ended: datetime | None

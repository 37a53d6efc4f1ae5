"""What is executed, where it comes from, what it needs, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """One piece of work: `payload` is anything that can be pickled."""

    number: int
    payload: Any


class Source(Protocol):
    """Where jobs come from and where their reports go; called on the driver, one call at a time."""

    def next(self) -> Job | None:
        """The next job, asked for when a worker is free for it; None: there are no more."""

    def result(self, number: int, report: dict[str, Any]) -> bool:
        """Hears a report; True stops the job, which is then ended without an error."""

    def ended(self, number: int, error: str | None) -> None:
        """Hears, once a job, that it has ended: well or stopped (None), or by an exception (its traceback) or
        the loss of its worker.
        """


@dataclass(frozen=True)
class Resources:
    """What one job needs, GPUs in fractions too; `concurrency`: jobs at once at most (None: all that fit)."""

    cpus: float = 1
    gpus: float = 0
    concurrency: int | None = None


@dataclass(frozen=True)
class Execution:
    """What came of it. Seconds: `wall` of the whole, `busy` summed over the jobs (without repeated work)."""

    ended: tuple[int, ...]
    interrupted: bool
    workers: int
    wall: float
    busy: float

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that went into jobs, 0 to 1."""
        return self.busy / (self.wall * self.workers) if self.wall else 0.0

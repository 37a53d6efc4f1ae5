"""The contract between who decides and who executes: a job, what it needs, and what came of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Report = Callable[[dict[str, Any]], None]
_HAIR = 1e-9  # three thirds of a GPU are one GPU, also in floating point


class LastReport(Exception):
    """Raised by a job to end with a report that waits for nobody: of several workers each may find out alone that it
    cannot go on, while the others wait for it."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(str(values))
        self.values = values


@dataclass(frozen=True)
class Job:
    """One piece of work: `payload` is anything that can be pickled. crowd: the share of the workers, this job's own
    included, that may be at work while it runs; it waits until no more are."""

    number: int
    payload: Any
    crowd: float = 1.0


@dataclass(frozen=True)
class End:
    """How a job left its worker.

    done: it returned, or was stopped. error: it raised; `text` is the traceback. lost: its worker's process or node
    is gone. outage: a storage failed it. memory: Ray killed it because its node ran out of memory. dropped: Ray Tune
    gave it up.
    """

    how: Literal["done", "error", "lost", "outage", "memory", "dropped"]
    text: str = ""


class Source(Protocol):
    """Where jobs come from and where their reports go; called on the driver, one call at a time."""

    def next(self) -> Job | None:
        """The next job, asked for when a worker is free for it. None: there is none, unless one that is out ends and
        is to run again; it is asked anew after every end."""

    def result(self, number: int, report: dict[str, Any]) -> bool:
        """Hears a report; True stops the job, which is then ended without an error."""

    def ended(self, number: int, end: End) -> None:
        """Hears, once for each time that `next` gave out the job, how it ended."""


@dataclass(frozen=True)
class Resources:
    """What one job needs: so many workers, each with its CPUs and GPUs, of these a fraction too; `concurrency`: jobs
    at once at most (None: all that fit)."""

    cpus: float = 1
    gpus: float = 0
    concurrency: int | None = None
    workers: int = 1

    def at_once(self, machines: Iterable[tuple[float, float]]) -> int:
        """How many jobs machines with so many (CPUs, GPUs) take; 0: not even one.

        A worker fits on one machine, a part of a GPU on one GPU; a job's workers may be on several machines.
        """
        fit = sum(self._places(cpus, gpus) for cpus, gpus in machines) // self.workers
        return min(fit, self.concurrency or fit)

    def _places(self, cpus: float, gpus: float) -> int:
        places = int(cpus / self.cpus + _HAIR)
        if self.gpus > 1:
            return min(places, int(gpus / self.gpus + _HAIR))
        if self.gpus:
            return min(places, int(gpus) * int(1 / self.gpus + _HAIR))
        return places

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")
        return each if self.workers == 1 else f"{self.workers} workers, each with {each}"


@dataclass(frozen=True)
class Execution:
    """What came of it. Seconds: `wall` of the whole, `busy` summed over the jobs (without repeated work)."""

    ended: tuple[int, ...]
    interrupted: bool
    workers: int  # jobs at once
    wall: float
    busy: float

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that went into jobs, 0 to 1."""
        return self.busy / (self.wall * self.workers) if self.wall else 0.0

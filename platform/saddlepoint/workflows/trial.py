"""What a worker does: one trial, told to the driver report by report. It knows no ledger and no tracking store.

A trial on several workers is this same code on each of them: they play as one team, and the first is heard.
A trial with several seeds is as many trainings, played side by side round by round: what is reported is their mean.
A trial of a population is a piece of one training; a schedule is a training whose values change from piece to piece.
"""

import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from ..errors import SaddleError
from ..randomness import derive
from ..remote import Place, place
from ..scaling.jobs import LastReport
from ..search.records import Outcome
from ..spec import Pipeline
from ..training.loop import Report, train
from ..training.sentinel import Diverged
from ..training.state import CHECKPOINT
from ..training.team import ALONE, Team, here
from .disk import remove

NODE = "node"  # in a report: where the process is that made it


@dataclass(frozen=True)
class Order:
    """All that a worker must know of a trial; plain data, so it crosses to any process."""

    pipeline: dict[str, Any]  # of this trial: its values are in it
    seed: int
    folder: str  # a path or a URI
    seeds: int = 1
    until: int | None = None  # the round at which this piece of a training ends
    inherit: str | None = None  # the folder of the piece that it goes on from
    before: tuple[tuple[int, dict[str, Any]], ...] = ()  # of a schedule: where each earlier piece ends, its pipeline

    def trainings(self) -> Iterator[tuple[int, Place]]:
        """Seed and folder of each."""
        folder = place(self.folder)
        for index in range(self.seeds):
            if index == 0 and self.seeds == 1:
                yield self.seed, folder
            else:
                yield derive(self.seed, "repeat", index), folder / f"seed-{index}"


def from_its_node(
    work: Callable[[Any, Callable[[dict[str, Any]], None]], None],
    order: Any,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """What a worker does: the work, each report of which says where it was made."""
    from ..scaling import places  # and with it Ray, which the process has: it is a worker of it

    work(order, lambda values: report({**values, NODE: places.node()}))


def work(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    """Trains, or goes on from the folder's checkpoint. What the configuration brought about is a result, no error."""
    folder = place(order.folder)
    if isinstance(folder, Path) and not folder.parents[1].is_dir():  # made here, no other node finds what is in it
        sweep = folder.parents[1]
        raise SaddleError(f"{socket.gethostname()} does not see the folder {sweep}, which every node must see")
    team = here()
    runs = [replay(order, team)] if order.before else list(_trainings(order, team))
    try:
        for told in runs[0] if len(runs) == 1 else together(runs):
            report(asdict(told))
    except Diverged as reason:
        report({Outcome.DIVERGED.value: str(reason)})
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        last = {Outcome.OUT_OF_MEMORY.value: " ".join(str(error).split())[:300] or "MemoryError"}
        if team.size > 1:  # the others have memory yet, and wait for this one
            raise LastReport(last) from error
        report(last)


def _trainings(order: Order, team: Team) -> Iterator[Iterator[Report]]:
    pipeline, inherit = Pipeline.parse(order.pipeline), None if order.inherit is None else place(order.inherit)
    for seed, folder in order.trainings():
        yield train(pipeline, seed=seed, folder=folder, until=order.until, inherit=inherit, team=team)


def replay(order: Order, team: Team = ALONE) -> Iterator[Report]:
    """A schedule as one training: piece after piece, each from the weights of the one before.

    The last piece is played in the order's folder, the earlier ones in folders inside it, which are gone when the
    next one has what it needs of them.
    """
    last = place(order.folder)
    ends: list[int | None] = [*(until for until, _ in order.before), None]
    contents = [*(content for _, content in order.before), order.pipeline]
    folders = [*(last / f"piece-{index}" for index in range(len(order.before))), last]
    begun = team.tell([index for index, folder in enumerate(folders) if (folder / CHECKPOINT).exists()])
    for index in range(max(begun, default=0), len(folders)):
        inherit = folders[index - 1] if index else None
        pipeline, folder = Pipeline.parse(contents[index]), folders[index]
        played = train(pipeline, seed=order.seed, folder=folder, until=ends[index], inherit=inherit, team=team)
        for report in played:
            if inherit is not None and team.leads:
                remove(inherit)
                inherit = None
            if folder == last or not report.final:
                yield report


def together(runs: list[Iterator[Report]]) -> Iterator[Report]:
    """The reports of several trainings of one length as one: means, with the pictures of the first.

    A training writes its checkpoint when it is asked for the report after; whoever is interrupted in between leaves
    some a report behind the others. They catch up unheard: what they say again has been told.
    """
    streams = [torch.get_rng_state()] * len(runs)  # torch's own stream is one; each training has its numbers from it

    def ask(index: int) -> Report | None:
        torch.set_rng_state(streams[index])
        report = next(runs[index], None)
        streams[index] = torch.get_rng_state()
        return report

    while True:
        heard = [ask(index) for index in range(len(runs))]
        reached = [_place(report) for report in heard if report is not None]
        if not reached:
            return
        for index, report in enumerate(heard):
            while report is not None and _place(report) < max(reached):
                report = heard[index] = ask(index)
        yield mean([report for report in heard if report is not None])


def _place(report: Report) -> tuple[int, bool]:
    return report.round, report.final


def mean(reports: list[Report]) -> Report:
    """Scores and logs are means over the trainings, seconds their sum."""
    first = reports[0]
    metrics = {name: fmean(each.metrics[name] for each in reports) for name in first.metrics}
    traces: dict[int, list[dict[str, float]]] = {}
    for each in reports:
        for round, logs in each.trace:
            traces.setdefault(round, []).append(logs)
    trace = [(round, {name: fmean(log[name] for log in logs) for name in logs[0]}) for round, logs in traces.items()]
    return replace(first, metrics=metrics, trace=sorted(trace, key=lambda entry: entry[0]),
                   seconds=sum(each.seconds for each in reports))  # fmt: skip


def _out_of_memory(error: BaseException) -> bool:
    """torch says it in three ways: CUDA's own error, and a RuntimeError of the CPU's allocator or of cuDNN."""
    text = str(error)
    known = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in known)

"""What a worker does: one training, told to the driver report by report. It knows no ledger and no tracking store."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..spec import Pipeline
from ..training.loop import train
from ..training.sentinel import Diverged


@dataclass(frozen=True)
class Order:
    """All that a worker must know of a trial; plain data, so it crosses to any process."""

    pipeline: dict[str, Any]  # of this trial: its values are in it
    seed: int
    folder: str


def work(order: Order, report: Callable[[dict[str, Any]], None]) -> None:
    """Trains, or goes on from the folder's checkpoint. A divergence is a result, not an error."""
    try:
        for told in train(Pipeline.parse(order.pipeline), seed=order.seed, folder=Path(order.folder)):
            report(asdict(told))
    except Diverged as reason:
        report({"diverged": str(reason)})

"""The whole: sweep, confirm, promote, and a look at what was promoted. Repeated, each part goes on where it was."""

from dataclasses import dataclass
from pathlib import Path

from ..files import write_bytes
from ..search.records import TrialRecord
from ..spec import Pipeline
from ..training.look import PICTURES, look
from .confirm import Confirmation, confirm
from .generate import load
from .promote import Promotion, promote
from .report import publish
from .sweep import Sweep, View, opened, unseen


@dataclass(frozen=True)
class Run:
    trials: list[TrialRecord]
    confirmation: Confirmation
    promotion: Promotion | None  # None if the pipeline promotes nothing
    picture: Path | None


def run(pipeline: Pipeline, *, root: Path | None = None, view: View = unseen) -> Run:
    with opened(pipeline, root, view) as sweep:
        sweep.search_on()
        confirmation = confirm(sweep)
        promotion = promote(sweep, confirmation) if pipeline.promote else None
        trials = sweep.ledger.trials()
        publish(sweep)
        picture = _picture(sweep, promotion) if promotion else None
    return Run(trials, confirmation, promotion, picture)


def _picture(sweep: Sweep, promotion: Promotion) -> Path | None:
    """What the champion does, as the registry gives it back."""
    looks = look(load(promotion.uri), sweep.shared.dataset)
    path = sweep.folder.path / "champion.png"
    for name in PICTURES:
        if name in looks:
            write_bytes(path, looks[name])
            return path
    return None

"""The whole: sweep, confirm, promote, and a look at what was promoted. Repeated, each part goes on where it was."""

from dataclasses import dataclass
from pathlib import Path

from ..search.records import TrialRecord
from ..spec import Pipeline
from .confirm import Confirmation, confirm
from .generate import generate
from .promote import Promotion, promote
from .sweep import View, opened, unseen


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
    picture = None
    if promotion is not None:
        [picture] = generate(promotion.uri, [sweep.folder.path / "champion.png"])
    return Run(trials, confirmation, promotion, picture)

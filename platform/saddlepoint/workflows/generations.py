"""The sources that play a population: its pieces in the search, the schedules that it found in the confirmation."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..search.population import Piece, Population
from ..search.records import Suggestion, TrialRecord
from ..spec import Pipeline
from .trial import Order
from .trials import Row, Trials

LINE = "line_seconds"  # among a piece's attrs: of all training up to its checkpoint, the pieces before it included
SCHEDULE = "schedule"  # among the attrs of a retraining that replays one


def population_of(pipeline: Pipeline) -> Population | None:
    search = pipeline.search
    if search is None or search.population is None:
        return None
    return Population(
        search.population,
        space=search.space,
        objective=pipeline.objective.built(),
        rounds=pipeline.training.rounds,
        seed=pipeline.seed,
    )


def piece_tags(piece: Piece) -> dict[str, str]:
    """What the run of a piece bears beside the tags of any trial."""
    tags = {"saddle.member": str(piece.member), "saddle.generation": str(piece.generation)}
    return tags if piece.parent is None else tags | {"saddle.parent_trial": str(piece.parent)}


def schedule_tags(trial: TrialRecord) -> dict[str, str]:
    """The same of a retraining."""
    return {"saddle.schedule": json.dumps(trial.attrs[SCHEDULE])} if SCHEDULE in trial.attrs else {}


class Generations(Trials):
    """All pieces of a population, one generation after the other.

    A generation that has begun is played to its end, also when the budget is spent meanwhile. What somebody may go on
    from keeps its checkpoint.
    """

    def __init__(self, pipeline: Pipeline, *rooms: Any, **terms: Any) -> None:
        super().__init__(pipeline, *rooms, **terms)
        population = population_of(pipeline)
        assert population is not None
        self.population = population
        self._ready: deque[Suggestion] = deque()
        cap, need = self.disk.cap, (population.spec.members + 1) * self.disk.need
        if cap is not None and cap < need:
            raise UserError(f"search.disk_gb: {cap / 1e9:g} GB do not hold a population of {population.spec.members} "
                            f"members, whose checkpoints take up to {need / 1e9:.2g} GB; give it more")  # fmt: skip

    @property
    def held(self) -> set[int]:
        return self.population.held(self.ledger.trials())

    def result(self, number: int, report: Mapping[str, Any]) -> bool:
        if report.get("final") is False:  # what comes after it is not in the checkpoint
            self.ledger.note(number, **{LINE: report["seconds"]})
        return super().result(number, report)

    def _suggest(self) -> Suggestion | None:
        if not self._ready:
            self._ready.extend(self.population.suggestions(self.ledger, new=not self.over))
            if self.population.extinct(self.ledger.trials()):
                self.over = "no member of the newest generation ended with a score to go on from"
        return self._ready.popleft() if self._ready else None

    def _placed(self, row: Row, order: Order) -> tuple[Order, dict[str, str]]:
        pieces = self.population.pieces(self.ledger.trials())
        piece = pieces[row.number]
        row.round, end = self.population.span(piece.generation)
        if piece.parent is None:
            return replace(order, until=end), piece_tags(piece)
        row.inherited = pieces[piece.parent].trial.attrs[LINE]
        inherit = self.folder.trial(self.kind, piece.parent)
        return replace(order, until=end, inherit=str(inherit)), piece_tags(piece)

    def _tidy(self, number: int, *, complete: bool) -> None:
        self.clear_leftovers()  # its end may have been the last that its parent was held for


class Replays(Trials):
    """The retrainings of a confirmation: that of a schedule plays its pieces one after another."""

    def _placed(self, row: Row, order: Order) -> tuple[Order, dict[str, str]]:
        trial = self.ledger.trials()[row.number]
        earlier = trial.attrs.get(SCHEDULE, [])[:-1]
        before = tuple((until, self.pipeline.with_values(values).content()) for until, values in earlier)
        return replace(order, before=before), schedule_tags(trial)

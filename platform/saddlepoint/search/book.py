"""What a driver keeps in mind of the ledger, so that no call has to read it all.

Nothing stands here alone: it is rebuilt from the records whenever a ledger is opened, and says the same again.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from saddlepoint.search.pruners import Pruner
from saddlepoint.search.records import Outcome, TrialRecord

AGAIN = 20  # suggestions in a row that bring nothing new, before the space counts as exhausted
_RAN = {"running", Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED, Outcome.OUT_OF_MEMORY}


class Book:
    """Who has the same values as whom, and the pruner, which has seen every score."""

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self.duplicates = 0
        self.in_a_row = 0  # duplicates since the last suggestion that was new
        self._ran: dict[str, int] = {}  # values: the first trial with them

    def read(self, records: Iterable[TrialRecord], queued: set[int], since: int) -> None:
        """`queued`: the numbers of trials that were queued rather than suggested. `since`: the first number of this
        generation: that the space was exhausted before says nothing of the one that it is now."""
        for record in records:
            for step in record.intermediate:
                self.pruner.seen(record.number, step, {name: curve[step] for name, curve in record.curves.items()})
            if record.state == Outcome.COMPLETE:
                self.pruner.completed(record.number)
            if record.state in _RAN:
                self.ran(record.number, record.values)
            if record.state == Outcome.DUPLICATE:
                self.repeated()
            elif record.number not in queued and record.state != "running":  # that may turn out to be one, too
                self.in_a_row = 0
            if record.number < since:
                self.in_a_row = 0

    def ran(self, number: int, values: Mapping[str, Any]) -> None:
        self._ran.setdefault(_key(values), number)

    def repeated(self) -> None:
        self.duplicates += 1
        self.in_a_row += 1

    def twin(self, number: int, values: Mapping[str, Any]) -> int | None:
        """The earlier trial that ran with these values."""
        first = self._ran.get(_key(values))
        return first if first is not None and first < number else None

    def failed(self, number: int) -> None:
        """Its values may be tried again."""
        self._ran = {values: first for values, first in self._ran.items() if first != number}


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)

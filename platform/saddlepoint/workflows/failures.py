"""What becomes of a trial that did not end well: five classes, each with a consequence of its own.

diverged        the sentinel stopped it             infeasible to the sampler, never tried again
out of memory   its configuration asked too much    tried once more with fewer beside it, then infeasible
lost            its worker was killed or preempted  goes on from its checkpoint, as often as it gets any further
failed          the code raised                     ended with its traceback; the sampler learns nothing from it
the same failure again and again                    stops the sweep, which then waits for the repair
"""

from dataclasses import dataclass, field

from ..errors import SaddleError

STANDSTILLS = 3  # so many workers lost in a row without one report in between: it is the trial that kills them


@dataclass
class Failures:
    """What went wrong since this command began. limit: so many identical failures in a row stop the sweep."""

    limit: int
    lost: dict[int, int] = field(default_factory=dict)  # trial: workers lost since its last report
    _last: str | None = None
    _row: int = 0

    def heard(self, number: int) -> None:
        """The trial has reported: whatever happened before, it got further."""
        self.lost.pop(number, None)

    def lose(self, number: int) -> bool:
        """Counts a lost worker; False: the trial shall not be tried again."""
        self.lost[number] = self.lost.get(number, 0) + 1
        return self.lost[number] < STANDSTILLS

    def well(self) -> None:
        """A trial has ended otherwise than by an error."""
        self._last, self._row = None, 0

    def failed(self, reason: str) -> SaddleError | None:
        """Counts a failed trial; what to raise if it is one too many of its kind."""
        self._row = self._row + 1 if reason == self._last else 1
        self._last = reason
        if self._row < self.limit:
            return None
        return SaddleError(
            f"stopped: {self._row} trials in a row failed with the same error: {reason}; its traceback is in MLflow, "
            "traceback.txt of each; everything else is on disk, and after the repair the same command goes on"
        )

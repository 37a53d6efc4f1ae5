"""What a sweep may spend: rounds, hours, GPU-hours, over all its lives. What is spent stands in the ledger."""

import time

from ..search.ledger import Ledger
from ..search.population import BEGINS
from ..spec_resources import BudgetSpec

CLOCK = "seconds"  # the ledger's note of how long commands have worked on the search


class Budget:
    """gpus: of one trial."""

    def __init__(self, spec: BudgetSpec, ledger: Ledger, gpus: float) -> None:
        trials = ledger.trials()
        self.spec, self.gpus = spec, gpus
        reached = ((trial, max(trial.intermediate)) for trial in trials if trial.intermediate)
        self.rounds = sum(last - trial.attrs.get(BEGINS, 0) for trial, last in reached)  # of a population: its pieces
        self.seconds = sum(float(trial.attrs.get("seconds", 0.0)) for trial in trials)  # of training
        self._ledger = ledger
        self._before = float(ledger.get(CLOCK, 0.0))
        self._start = time.monotonic()

    @property
    def hours(self) -> float:
        """By the clock; what a killed command has worked since its last `note` is lost from the count."""
        return (self._before + time.monotonic() - self._start) / 3600

    def note(self) -> None:
        self._ledger.set(CLOCK, 3600 * self.hours)

    def spend(self, rounds: int, seconds: float) -> None:
        self.rounds += rounds
        self.seconds += seconds

    def spent(self) -> str | None:
        """In words, what of the budget is used up; None if trials may begin."""
        spec, gpu_hours = self.spec, self.gpus * self.seconds / 3600
        if spec.rounds is not None and self.rounds >= spec.rounds:
            return f"search.budget.rounds: {self.rounds:,} of {spec.rounds:,} are spent"
        if spec.hours is not None and self.hours >= spec.hours:
            return f"search.budget.hours: {self.hours:.2f} of {spec.hours:g} are spent"
        if spec.gpu_hours is not None and gpu_hours >= spec.gpu_hours:
            return f"search.budget.gpu_hours: {gpu_hours:.2f} of {spec.gpu_hours:g} are spent"
        return None

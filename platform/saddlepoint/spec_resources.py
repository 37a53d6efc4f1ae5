"""What a user says of the machines and of what may be spent on them."""

from typing import Annotated

from annotated_types import Ge
from pydantic import Field

from .errors import UserError
from .validation import Strict

Count = Annotated[int, Ge(1)]


class BudgetSpec(Strict):
    """What a sweep may spend, over all its lives. What is reached first ends it: no new trial begins, and those that
    run go to their end."""

    rounds: Count | None = None  # of all trials together
    hours: Annotated[float, Field(gt=0)] | None = None  # of work on it by the clock
    gpu_hours: Annotated[float, Field(gt=0)] | None = None  # of trials, times their resources.gpus


class ResourcesSpec(Strict):
    workers: Count = 1  # processes that play one training together, each with its part of every batch
    cpus: Count = 1  # of one worker; on the CPU also the number of torch's threads
    gpus: Annotated[float, Field(ge=0)] = 0.0  # of a trial on one worker; a fraction lets several share a GPU
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None  # the same where there are more
    concurrency: Count | None = None  # trials at once, at most; as many as fit if not given

    @property
    def gpus_each(self) -> float:
        """GPUs of one worker."""
        return self.gpus if self.gpus_per_worker is None else self.gpus_per_worker

    @property
    def gpus_of_trial(self) -> float:
        return self.workers * self.gpus_each

    def check(self, batch_size: int, accumulate: int) -> None:
        """Raises UserError for what does not go together."""
        parts = self.workers * accumulate
        if batch_size % parts:
            raise UserError(f"training.batch_size: {batch_size} should be a multiple of {parts}, which is "
                            f"resources.workers, {self.workers}, times training.accumulate, {accumulate}")  # fmt: skip
        if self.gpus and self.gpus_per_worker is not None:
            raise UserError(f"resources.gpus: {self.gpus:g} and gpus_per_worker: {self.gpus_per_worker:g} say the same "
                            "thing; give one of them, and unset the other: gpus=0 or gpus_per_worker=null")  # fmt: skip
        if self.gpus and self.workers > 1:
            raise UserError(f"resources.gpus: {self.gpus:g} is for trials on one worker; with {self.workers} workers "
                            "give resources.gpus_per_worker, and unset it: resources.gpus=0")  # fmt: skip
        if self.workers > 1 and self.gpus_each % 1:
            raise UserError(f"resources.gpus_per_worker: {self.gpus_each:g} should be a whole number: two workers of "
                            "one training cannot talk to each other from the same GPU")  # fmt: skip
        if self.gpus_each > 1 and self.gpus_each % 1:
            raise UserError(
                f"resources.gpus: {self.gpus_each:g} should be a part of one GPU, or a whole number of them"
            )

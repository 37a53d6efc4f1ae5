"""What the user says that a training needs, in the executor's words."""

from ..errors import UserError
from ..scaling.jobs import Resources
from ..spec import Pipeline
from ..spec_resources import ResourcesSpec


def needs(spec: ResourcesSpec) -> Resources:
    return Resources(cpus=spec.cpus, gpus=spec.gpus_each, concurrency=spec.concurrency, workers=spec.workers)


def driver_device(pipeline: Pipeline, *, elsewhere: bool) -> str:
    """What the driver of trainings on Ray computes on: on what they do, if this machine has it.

    elsewhere: whether other machines take part, which may have the GPU that this one has not. Raises UserError for a
    GPU that no training would see.
    """
    asked, key = pipeline.training.device, "gpus" if pipeline.resources.workers == 1 else "gpus_per_worker"
    if pipeline.resources.gpus_each:
        return "auto" if elsewhere and asked != "cpu" else asked
    if asked.startswith("cuda"):
        raise UserError(f"training.device: {asked!r} asked for, and resources.{key} is 0: who asks Ray for no GPU sees "
                        f"none; give resources.{key}, or device auto")  # fmt: skip
    return "cpu"

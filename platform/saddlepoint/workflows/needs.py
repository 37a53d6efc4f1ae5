"""What the user says that a training needs, in the executor's words."""

from ..scaling.jobs import Resources
from ..spec_resources import ResourcesSpec


def needs(spec: ResourcesSpec) -> Resources:
    return Resources(cpus=spec.cpus, gpus=spec.gpus_each, concurrency=spec.concurrency, workers=spec.workers)

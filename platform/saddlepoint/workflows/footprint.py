"""What one trial takes on the disk, measured: its checkpoint and its generator, written once after one round."""

import tempfile
from pathlib import Path

from ..generator import save_generator
from ..spec import Pipeline
from ..training.setup import Setup
from ..training.state import Training
from .disk import size
from .structures import structures


def trial_bytes(pipeline: Pipeline, shared: Setup) -> int:
    """The most that a live trial takes, over all structures of the search space: each of its files is there twice
    while its successor replaces it."""
    return max(2 * written(trial, shared) for _, trial in structures(pipeline))


def written(trial: Pipeline, shared: Setup) -> int:
    with tempfile.TemporaryDirectory() as place:
        training = Training(trial, trial.seed, Path(place), shared)
        training.play()  # optimisers have no state before their first step
        save_all(training)
        return size(Path(place))


def save_all(training: Training) -> None:
    training.save()
    save_generator(training.folder, training.generator.networks, training.card)

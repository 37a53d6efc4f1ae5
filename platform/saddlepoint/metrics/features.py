"""What samples are compared by: a function from samples to feature vectors, with a name and a hash.

A score means something only beside the hash of its extractor.
"""

import hashlib
from pathlib import Path
from typing import Protocol

from torch import Tensor

from saddlepoint.data import Dataset
from saddlepoint.errors import UserError, unknown
from saddlepoint.metrics.classifier import classifier
from saddlepoint.metrics.inception import inception

FEATURES = ("auto", "classifier", "inception", "pixels")


class Extractor(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str:
        """sha256 of the recipe and of the weights, if it has any."""

    @property
    def dimension(self) -> int: ...

    def __call__(self, samples: Tensor) -> Tensor:
        """(N, *X) -> (N, dimension) float64 on the CPU."""


class Pixels:
    """The samples themselves, flattened: right for points; for images it is blind to shape."""

    name = "pixels"
    hash = hashlib.sha256(b"pixels 1: flattened").hexdigest()

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        self.dimension = 1
        for size in sample_shape:
            self.dimension *= size

    def __call__(self, samples: Tensor) -> Tensor:
        return samples.flatten(1).double().cpu()


def extractor(
    dataset: Dataset, features: str = "auto", weights: str | Path | None = None, cache: Path | None = None
) -> Extractor:
    """The extractor named `features` for this data set.

    Args:
        features: classifier (labelled images: trained on them once, cached), inception (images), pixels (the
            samples themselves), or auto: classifier if there are labels, pixels for points.
        weights: a file of Inception weights, instead of the download.
        cache: the folder of trained classifiers.

    Raises:
        UserError: an unknown name, or one that the data set does not allow.
    """
    if features not in FEATURES:
        raise unknown("objective.features", features, FEATURES)
    if features == "auto":
        features = _auto(dataset)
    if weights is not None and features != "inception":
        raise UserError(f"objective.feature_weights: {str(weights)!r}; only inception takes weights")
    if features == "classifier":
        return classifier(dataset, cache)
    if features == "inception":
        if dataset.kind != "image" or dataset.sample_shape[0] not in (1, 3):
            raise UserError(
                f"objective.features: 'inception' needs images of 1 or 3 channels; "
                f"a sample of {dataset.name!r} has the shape {dataset.sample_shape}"
            )
        return inception(weights)
    return Pixels(dataset.sample_shape)


def _auto(dataset: Dataset) -> str:
    if dataset.kind == "points":
        return "pixels"
    if dataset.train_labels is not None:
        return "classifier"
    raise UserError(
        f"objective.features: the images of {dataset.name!r} have no labels to train a classifier on; "
        "choose inception or pixels"
    )

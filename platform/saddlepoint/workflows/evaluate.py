"""Scores any generator against any data set with the platform's metrics, beside what real data scores."""

from dataclasses import dataclass
from typing import Any

from .. import data
from ..errors import UserError
from ..metrics import scorer
from ..randomness import stream
from ..training.subjects import offers, subject
from .generate import load


@dataclass(frozen=True)
class Evaluation:
    model: str
    data: str
    scores: dict[str, float]
    floor: dict[str, float]
    protocol: dict[str, str | int]


def evaluate(
    model: str,
    *,
    dataset: str | None = None,
    options: dict[str, Any] | None = None,
    samples: int | None = None,
    features: str = "auto",
    feature_weights: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Against the data that the generator was trained on, unless another data set is named."""
    generator = load(model)
    known = generator.card["data"]
    name = dataset or known["name"]
    against = data.load(name, **(options or (known["options"] if dataset is None else {})))
    if tuple(against.sample_shape) != generator.sample_shape:
        raise UserError(f"data.name: {name!r} has samples of shape {tuple(against.sample_shape)}, "
                        f"but {model} generates {generator.sample_shape}")  # fmt: skip
    if generator.game.translate and against.target is None:
        raise UserError(f"data.name: {name!r} is one domain, and {model} translates between two")
    offered = offers(generator.game, generator.card["z_dim"])
    by = scorer(against, offered, samples=samples, features=features, feature_weights=feature_weights)
    scores = by.score(subject(generator, by.samples, stream(seed, "sample")), by.available)
    return Evaluation(model, name, scores, by.floor(by.available), dict(by.protocol))

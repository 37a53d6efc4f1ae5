"""Who is winning: scores of generated samples against real ones that no game has seen."""

from pathlib import Path

from saddlepoint.data import Dataset
from saddlepoint.metrics.catalogue import METRICS, Metric
from saddlepoint.metrics.density_ratio import DensityRatio, density_ratio
from saddlepoint.metrics.objective import Bound, Objective
from saddlepoint.metrics.scorer import Scorer
from saddlepoint.metrics.subject import LatentModel, Offers, Subject
from saddlepoint.metrics.translation import TranslationScorer

__all__ = [
    "METRICS",
    "Bound",
    "DensityRatio",
    "LatentModel",
    "Metric",
    "Objective",
    "Offers",
    "Scorer",
    "Subject",
    "TranslationScorer",
    "density_ratio",
    "scorer",
]


def scorer(
    dataset: Dataset,
    offers: Offers,
    *,
    samples: int | None = None,
    features: str = "auto",
    feature_weights: str | None = None,
    cache: Path | None = None,
) -> Scorer | TranslationScorer:
    """What scores subjects with these offers on this data: see `Scorer` and `TranslationScorer`."""
    if offers.translate:
        return TranslationScorer(
            dataset, samples=samples, features=features, feature_weights=feature_weights, cache=cache
        )
    return Scorer(
        dataset, offers=offers, samples=samples, features=features, feature_weights=feature_weights, cache=cache
    )

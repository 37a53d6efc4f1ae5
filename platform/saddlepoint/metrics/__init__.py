"""Who is winning: scores of generated samples against real ones that no game has seen."""

from saddlepoint.metrics.catalogue import METRICS, Metric
from saddlepoint.metrics.scorer import Scorer

__all__ = ["METRICS", "Metric", "Scorer"]

"""Which classes a generator makes: the drift and collapse that FID and precision can miss.

Shapes   N samples, K classes; shares (K,) sum to 1.
"""

import torch
from torch import Tensor

from saddlepoint.errors import UserError


def class_shares(probabilities: Tensor) -> Tensor:
    """The share of samples (N, K) whose most probable class is each: (K,) float64.

    Raises:
        UserError: fewer samples than classes.
    """
    n, classes = probabilities.shape
    if n < classes:
        raise UserError(f"objective.samples: {n}; {classes} classes need at least as many samples")
    return torch.bincount(probabilities.argmax(dim=1), minlength=classes).double() / n


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the summed absolute difference of two vectors of shares: 0 equal, 1 disjoint."""
    return float((p - q).abs().sum() / 2)


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of samples (N, K) whose most probable class is the one asked for (N,)."""
    return float((probabilities.argmax(dim=1) == labels.cpu()).double().mean())

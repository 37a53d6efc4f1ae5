"""Frechet distance of Gaussians fitted to two sets of features: FID (Heusel et al. 2017, arXiv:1706.08500).

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)

The matrix under the root is symmetric and not negative, so two eigen-decompositions do: no complex parts, no
iteration, the same bits every time, unlike a general matrix root of S1 S2.

Shapes   N samples, D features.   Unit   that of the features, squared; it depends on the extractor.
Bias     falls with N: two values are comparable only at equal N.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.errors import UserError


@dataclass(frozen=True, eq=False)
class Moments:
    mean: Tensor  # (D,) float64
    covariance: Tensor  # (D, D) float64, divided by N - 1


def moments(features: Tensor) -> Moments:
    """Mean and covariance of features (N, D).

    Raises:
        UserError: N <= D. The covariance is then singular and the distance mostly says how small N is.
    """
    n, dimension = features.shape
    if n <= dimension:
        raise UserError(f"objective.samples: {n}; fid on {dimension} features needs at least {dimension + 1}")
    mean = features.double().mean(dim=0)
    centred = features.double() - mean
    return Moments(mean, centred.T @ centred / (n - 1))


def frechet(real: Moments, fake: Moments) -> float:
    """The squared Frechet (2-Wasserstein) distance of two Gaussians; 0 means equal moments."""
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ fake.covariance @ root).clamp(min=0).sqrt().sum()
    shift = (real.mean - fake.mean).square().sum()
    return float(shift + real.covariance.trace() + fake.covariance.trace() - 2 * cross)

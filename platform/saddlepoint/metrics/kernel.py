"""Kernel distance: KID (Binkowski et al. 2018, arXiv:1801.01401), the unbiased squared MMD.

    k(x, y) = (x . y / D + 1)^3,    features divided by the real ones' root mean variance

The paper takes features as they are, and their unit makes the number arbitrary: 1e2 to 1e4 for a small
classifier. Here both sets are first divided by sqrt(mean over features of the real variance), so that values
of different extractors are of one order. They are not the KID of papers that use raw Inception features.

Shapes   N samples, D features.   Unbiased: about 0, and below it half the time, for two samples of one law.
"""

import torch
from torch import Tensor

from saddlepoint.errors import UserError

ROWS = 1024  # of the kernel matrix at a time: memory is ROWS x N, not N x N


def kid(real: Tensor, fake: Tensor) -> float:
    """KID between features (N, D) and (M, D), over all pairs at once rather than over random subsets.

    Raises:
        UserError: fewer than two samples in either, or real features that do not vary.
    """
    n, m = len(real), len(fake)
    if min(n, m) < 2:
        raise UserError(f"objective.samples: {min(n, m)}; kid needs at least 2")
    scale = real.double().var(dim=0).mean().sqrt()
    if scale == 0:
        raise UserError("objective.metric: 'kid' needs real features that vary; these are all equal")
    x, y = real.double() / scale, fake.double() / scale
    within_real = (_total(x, x) - _diagonal(x)) / (n * (n - 1))
    within_fake = (_total(y, y) - _diagonal(y)) / (m * (m - 1))
    return float(within_real + within_fake - 2 * _total(x, y) / (n * m))


def _total(x: Tensor, y: Tensor) -> Tensor:
    """The sum of k over all pairs."""
    return torch.stack([_cube(rows @ y.T / x.shape[1]).sum() for rows in torch.split(x, ROWS)]).sum()


def _diagonal(x: Tensor) -> Tensor:
    return _cube(x.square().sum(dim=1) / x.shape[1]).sum()


def _cube(inner: Tensor) -> Tensor:
    return (inner + 1).pow(3)

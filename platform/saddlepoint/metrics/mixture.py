"""Modes found and modes dropped, for a mixture of Gaussians: the protocol of PacGAN (arXiv:1712.04086).

A sample belongs to its nearest mode and is of high quality within 3 standard deviations of it. In two
dimensions a perfect sampler has 1 - exp(-4.5) = 98.9 % of high quality; more means modes that have shrunk,
which std_ratio shows. One stray sample makes a mode count as found: read modes beside reverse_kl.

Shapes   N samples, D coordinates, K modes.   Unit   shares in 0..1, reverse KL in nats.
"""

import math

import torch
from torch import Tensor

from saddlepoint.errors import UserError

REACH = 3.0  # standard deviations


def mixture_scores(samples: Tensor, means: Tensor, std: float) -> dict[str, float]:
    """Scores of samples (N, D) against modes (K, D) of one isotropic std.

    modes           how many hold a sample of high quality
    high_quality    the share of samples that are of high quality
    reverse_kl      KL(histogram of high-quality samples over the modes || uniform) = log K - its entropy;
                    log K, the worst there is, if no sample is of high quality
    reverse_kl_all  the same over all samples: with the right weights but smeared modes it stays near 0
    std_ratio       standard deviation inside the modes over that of the mixture, both within 3 std: 1 is
                    right, below 1 are shrunken modes; 0 if no mode holds two samples of high quality

    Raises:
        UserError: fewer samples than modes.
    """
    n, dimension = samples.shape
    if n < len(means):
        raise UserError(f"objective.samples: {n}; {len(means)} modes need at least as many samples")
    points = samples.double()
    distance, mode = torch.cdist(points, means.double(), compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    good = distance < REACH * std
    histogram = torch.bincount(mode[good], minlength=len(means)).double()
    return {
        "modes": float((histogram > 0).sum()),
        "high_quality": float(good.double().mean()),
        "reverse_kl": _reverse_kl(histogram),
        "reverse_kl_all": _reverse_kl(torch.bincount(mode, minlength=len(means)).double()),
        "std_ratio": _spread(points[good], mode[good], histogram) / (std * _truncation(dimension)),
    }


def _reverse_kl(histogram: Tensor) -> float:
    if histogram.sum() == 0:
        return math.log(len(histogram))
    shares = histogram / histogram.sum()
    return math.log(len(histogram)) + float(torch.xlogy(shares, shares).sum())


def _spread(points: Tensor, mode: Tensor, histogram: Tensor) -> float:
    """The standard deviation per coordinate around each mode's own mean, pooled over modes."""
    freedom = float((histogram - 1).clamp(min=0).sum())
    if freedom == 0:
        return 0.0
    sums = torch.zeros(len(histogram), points.shape[1], dtype=torch.float64).index_add_(0, mode, points)
    centres = sums / histogram.clamp(min=1)[:, None]
    return math.sqrt(float((points - centres[mode]).square().sum()) / (freedom * points.shape[1]))


def _truncation(dimension: int) -> float:
    """The standard deviation per coordinate of a standard Gaussian cut off at REACH: 0.974 in two dimensions.

    E[r^2 | r < R] / D = P(chi2 of D + 2 degrees < R^2) / P(chi2 of D degrees < R^2).
    """

    def chi2(degrees: int) -> float:
        half = torch.tensor([degrees, REACH**2], dtype=torch.float64) / 2
        return float(torch.special.gammainc(half[0], half[1]))

    return math.sqrt(chi2(dimension + 2) / chi2(dimension))

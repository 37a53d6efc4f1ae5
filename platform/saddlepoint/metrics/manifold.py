"""Fidelity and diversity by nearest neighbours: balls around each sample that reach its k-th neighbour.

precision   share of fakes inside some real sample's ball       Kynkaanniemi et al. 2019, arXiv:1904.06991
recall      share of reals inside some fake sample's ball       the same
density     real balls that hold a fake, on average, over k     Naeem et al. 2020, arXiv:2002.09797
coverage    share of real balls that hold some fake             the same
one_nn      leave-one-out accuracy of a 1-nearest-neighbour     Lopez-Paz & Oquab 2017, arXiv:1610.06545
            classifier, real against fake: 0.5 one law, 1.0 apart, below 0.5 fakes that copy these very reals

A sample is not its own neighbour; balls are closed; a tie between the two sets counts one half in one_nn.
Precision and density alone are fooled by collapse: read them beside recall or coverage.

Shapes   N real, M fake samples, D features. All in float64; distances are squared throughout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlepoint.errors import UserError
from saddlepoint.metrics.distance import squared_distances

K = 3  # as in the recall paper; it wants some 900 samples on both sides
ROWS = 1024  # of the distance matrix at a time: memory is ROWS x N, not N x N


@dataclass(frozen=True, eq=False)
class Within:
    """One set seen from inside."""

    nearest: Tensor  # (N,) squared distance to the nearest other sample
    radius: Tensor  # (N,) squared distance to the k-th nearest other sample


def within(features: Tensor, k: int = K) -> Within:
    """Neighbours of each sample among the others of its set.

    Raises:
        UserError: k or fewer samples.
    """
    if len(features) <= k:
        raise UserError(f"objective.samples: {len(features)}; {k} nearest neighbours need at least {k + 1}")
    nearest = []
    for start, rows in zip(range(0, len(features), ROWS), torch.split(features, ROWS), strict=True):
        distances = squared_distances(rows, features)
        distances.diagonal(start).fill_(torch.inf)  # nobody is his own neighbour
        nearest.append(distances.topk(k, dim=1, largest=False, sorted=True).values)
    neighbours = torch.cat(nearest)
    return Within(neighbours[:, 0].clone(), neighbours[:, -1].clone())


def manifold(real: Tensor, fake: Tensor, real_within: Within | None = None, k: int = K) -> dict[str, float]:
    """precision, recall, density, coverage and one_nn of features (N, D) against (M, D), in one pass.

    Args:
        real_within: `within(real, k)`, for a caller who scores many fakes against the same reals.

    Raises:
        UserError: k or fewer samples in either set.
    """
    inside_real = real_within or within(real, k)
    inside_fake = within(fake, k)
    balls = torch.zeros(len(fake), dtype=torch.int64)  # how many real balls hold each fake
    to_real = torch.full((len(fake),), torch.inf, dtype=torch.float64)  # from each fake to the nearest real
    to_fake, recalled = [], []  # from each real to the nearest fake; whether some fake ball holds it
    for rows, radius in zip(torch.split(real, ROWS), torch.split(inside_real.radius, ROWS), strict=True):
        distances = squared_distances(rows, fake)
        balls += (distances <= radius[:, None]).sum(dim=0)
        to_real = torch.minimum(to_real, distances.amin(dim=0))
        to_fake.append(distances.amin(dim=1))
        recalled.append((distances <= inside_fake.radius).any(dim=1))
    from_real = torch.cat(to_fake)
    correct = _correct(inside_real.nearest, from_real) + _correct(inside_fake.nearest, to_real)
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(torch.cat(recalled).double().mean()),
        "density": int(balls.sum()) / (k * len(fake)),
        "coverage": float((from_real <= inside_real.radius).double().mean()),
        "one_nn": correct / (len(real) + len(fake)),
    }


def _correct(own: Tensor, other: Tensor) -> float:
    """How many samples lie nearer to their own set than to the other."""
    return int((own < other).sum()) + int((own == other).sum()) / 2

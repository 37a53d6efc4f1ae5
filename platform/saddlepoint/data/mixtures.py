"""Ring and grid: two-dimensional mixtures in which a dropped mode can be counted.

The protocol is PacGAN's (Lin, Khetan, Fanti & Oh 2018, arXiv:1712.04086, and their code): 8 modes on the unit
circle with std 0.01, or means {-4, -2, 0, 2, 4}^2 with std 0.05; 100 000 training samples, drawn once.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from saddlepoint.data.dataset import Dataset, Mixture, require


def ring(
    modes: int = 8,
    radius: float = 1.0,
    std: float = 0.01,
    train: int = 100_000,
    heldout: int = 10_000,
    seed: int = 0,
) -> Dataset:
    """Gaussians at equal angles on a circle, the first at (radius, 0)."""
    require(modes >= 1, "modes", modes, "at least 1")
    require(0 < radius < math.inf, "radius", radius, "above 0")
    angles = 2 * np.pi / modes * np.arange(modes)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    means = radius * circle.round(12)  # machines differ in the last bit of a cosine; the fingerprint must not
    return _mixture("ring", means, std, train, heldout, seed)


def grid(
    side: int = 5,
    spacing: float = 2.0,
    std: float = 0.05,
    train: int = 100_000,
    heldout: int = 10_000,
    seed: int = 0,
) -> Dataset:
    """Gaussians on a square grid of side x side points around the origin."""
    require(side >= 1, "side", side, "at least 1")
    require(0 < spacing < math.inf, "spacing", spacing, "above 0")
    line = spacing * (np.arange(side) - (side - 1) / 2)
    means = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return _mixture("grid", means, std, train, heldout, seed)


def _mixture(name: str, means: NDArray[np.float64], std: float, train: int, heldout: int, seed: int) -> Dataset:
    require(0 < std < math.inf, "std", std, "above 0")
    require(train >= 1, "train", train, "at least 1")
    require(heldout >= 1, "heldout", heldout, "at least 1")
    require(seed >= 0, "seed", seed, "0 or more")
    streams = np.random.SeedSequence(seed).spawn(2)  # two independent streams, one for each half

    def draw(n: int, stream: np.random.SeedSequence) -> torch.Tensor:
        rng = np.random.default_rng(stream)  # NumPy's normals are the same on every machine; torch's are not
        samples = means[rng.integers(len(means), size=n)] + std * rng.standard_normal((n, 2))
        return torch.from_numpy(samples.astype(np.float32))

    mixture = Mixture(torch.from_numpy(means), std)
    return Dataset.build(name, "points", draw(train, streams[0]), draw(heldout, streams[1]), mixture=mixture)

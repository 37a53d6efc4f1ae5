"""Modes of samplers that are perfect, collapsed, shrunken, smeared or uneven; class histograms by hand."""

import math

import pytest
import torch
from scipy.stats import chi2

from saddlepoint.data import load
from saddlepoint.errors import UserError
from saddlepoint.metrics.classes import class_shares, total_variation
from saddlepoint.metrics.mixture import mixture_scores

RING = load("ring", train=2, heldout=2).mixture.means
STD = 0.01


def sample(n, seed, std=STD, modes=8, means=RING):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
    return means[torch.arange(n) % modes] + std * noise


def test_a_perfect_sampler():
    scores = mixture_scores(sample(2504, seed=0), RING, STD)  # 313 for each mode
    p = 1 - math.exp(-4.5)
    assert scores["modes"] == 8
    assert scores["high_quality"] == pytest.approx(p, abs=3 * math.sqrt(p * (1 - p) / 2504))
    assert 0 < scores["reverse_kl"] < 1e-3
    assert scores["reverse_kl_all"] == pytest.approx(0, abs=1e-12)
    assert scores["std_ratio"] == pytest.approx(1, abs=0.03)  # sd of a pooled std: 1 / sqrt(2 * 5000) = 0.01


def test_a_perfect_sampler_in_ten_dimensions():
    means = 5 * torch.eye(10, dtype=torch.float64)
    scores = mixture_scores(sample(5000, seed=1, std=0.5, modes=10, means=means), means, 0.5)
    p = chi2.cdf(9, 10)
    assert scores["high_quality"] == pytest.approx(p, abs=3 * math.sqrt(p * (1 - p) / 5000))
    assert scores["std_ratio"] == pytest.approx(1, abs=0.03)


def test_collapse_to_one_mode():
    scores = mixture_scores(sample(2500, seed=2, modes=1), RING, STD)
    assert scores["modes"] == 1
    assert scores["reverse_kl"] == pytest.approx(math.log(8), abs=1e-12)
    assert scores["reverse_kl_all"] == pytest.approx(math.log(8), abs=1e-12)
    assert scores["high_quality"] > 0.98


def test_uneven_modes():
    samples = torch.cat([RING[:1].expand(300, 2), RING[1:2].expand(100, 2)])
    scores = mixture_scores(samples, RING, STD)
    # KL((3/4, 1/4) || uniform over 8) = log 8 + 3/4 log 3/4 + 1/4 log 1/4
    assert scores["reverse_kl"] == pytest.approx(math.log(8) - 0.5623351446188083, abs=1e-12)
    assert scores["high_quality"] == 1
    assert scores["std_ratio"] == pytest.approx(0, abs=1e-12)  # two points, no spread


def test_shrunken_modes_score_more_quality_than_is_honest():
    scores = mixture_scores(sample(2504, seed=3, std=STD / 2), RING, STD)
    assert scores["high_quality"] == pytest.approx(1, abs=1e-3)
    # half the spread, over that of a Gaussian cut at 3 std: sqrt((1 - 5.5 e^-4.5) / (1 - e^-4.5)) = 0.9744
    assert scores["std_ratio"] == pytest.approx(0.5 / 0.97439, abs=0.02)


def test_spread_is_around_the_samples_own_centre():
    moved = sample(2504, seed=4, std=STD / 4) + torch.tensor([STD, 0.0])
    scores = mixture_scores(moved, RING, STD)
    assert scores["std_ratio"] == pytest.approx(0.25 / 0.97439, abs=0.01)


def test_smeared_modes_keep_their_weights():
    scores = mixture_scores(sample(2504, seed=5, std=10 * STD), RING, STD)
    p = 1 - math.exp(-0.045)
    assert scores["high_quality"] == pytest.approx(p, abs=3 * math.sqrt(p * (1 - p) / 2504))
    assert scores["reverse_kl_all"] < 1e-3


def test_nothing_of_quality_is_the_worst():
    scores = mixture_scores(torch.zeros(100, 2), RING, STD)
    assert scores["modes"] == scores["high_quality"] == scores["std_ratio"] == 0
    assert scores["reverse_kl"] == pytest.approx(math.log(8), abs=1e-12)


def test_fewer_samples_than_modes():
    with pytest.raises(UserError, match=r"^objective\.samples: 7; 8 modes need"):
        mixture_scores(sample(7, seed=6), RING, STD)


def test_class_shares_and_their_distance():
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]])
    shares = class_shares(probabilities)
    assert shares.tolist() == [0.75, 0, 0.25]
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert total_variation(shares, even) == pytest.approx(5 / 12, abs=1e-12)
    assert total_variation(shares, shares) == 0
    assert total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == 1
    with pytest.raises(UserError, match=r"^objective\.samples: 2; 3 classes need"):
        class_shares(probabilities[:2])

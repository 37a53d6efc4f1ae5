"""KID: the estimator by hand, its unbiasedness, and what the scaling makes of it."""

import math

import pytest
import torch

from saddlepoint.errors import UserError
from saddlepoint.metrics import kernel
from saddlepoint.metrics.kernel import kid


def normal(n, dimension, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimension, dtype=torch.float64, generator=generator)


def by_hand(real, fake):
    scale = math.sqrt(real.var(dim=0).mean())
    x, y = (real / scale).tolist(), (fake / scale).tolist()

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def pairs(s):
        return sum(k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) / (len(s) * (len(s) - 1))

    return pairs(x) + pairs(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_two_points_in_one_dimension():
    # real -1, 1: variance 2, so x = -+1/sqrt 2; k(x1, x2) = (1 - 1/2)^3 = 1/8.
    # fake 0, 0: k = 1, and k(x, 0) = 1. KID = 1/8 + 1 - 2.
    assert kid(torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1)) == pytest.approx(-0.875, abs=1e-12)


@pytest.mark.parametrize("rows", [7, 1024])
def test_agrees_with_the_double_sum(monkeypatch, rows):
    monkeypatch.setattr(kernel, "ROWS", rows)
    real, fake = normal(23, 5, seed=0) + 0.5, 2 * normal(31, 5, seed=1)
    assert kid(real, fake) == pytest.approx(by_hand(real, fake), rel=1e-10)


def test_unbiased_for_two_samples_of_one_law():
    # 150 draws; the biased V-statistic would stand tens of standard errors above 0 here.
    values = torch.tensor([kid(normal(40, 8, 2 * s), normal(40, 8, 2 * s + 1)) for s in range(150)])
    standard_error = float(values.std()) / math.sqrt(150)
    assert abs(float(values.mean())) < 3 * standard_error
    assert standard_error < 0.02
    assert (values < 0).double().mean() > 0.3


def test_the_unit_of_the_features_does_not_matter():
    real, fake = normal(60, 4, seed=2), normal(60, 4, seed=3) + 1
    assert kid(100 * real, 100 * fake) == pytest.approx(kid(real, fake), rel=1e-10)
    assert kid(real, fake) > 1


def test_too_little_to_say():
    with pytest.raises(UserError, match=r"^objective\.samples: 1; kid needs"):
        kid(normal(5, 2, 0), normal(1, 2, 1))
    with pytest.raises(UserError, match="features that vary"):
        kid(torch.ones(5, 2), normal(5, 2, 1))

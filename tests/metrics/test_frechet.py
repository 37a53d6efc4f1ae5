"""FID against closed forms of the Frechet distance of Gaussians."""

import pytest
import torch
from scipy.linalg import sqrtm

from saddlepoint.errors import UserError
from saddlepoint.metrics.frechet import Moments, frechet, moments


def gaussian(mean, covariance):
    return Moments(torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64))


def random(n, dimension, seed):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)
    return torch.randn(n, dimension, dtype=torch.float64, generator=generator) @ mix


def test_commuting_covariances():
    p = gaussian([0.0, 1.0, 2.0], [[4.0, 0, 0], [0, 9, 0], [0, 0, 0]])
    q = gaussian([3.0, 1.0, 6.0], [[1.0, 0, 0], [0, 25, 0], [0, 0, 16]])
    # |dm|^2 + sum (sqrt a - sqrt b)^2, one of the variances 0
    assert frechet(p, q) == pytest.approx(9 + 16 + 1 + 4 + 16, abs=1e-12)


def test_covariances_that_do_not_commute():
    a, b = [[2.0, 1.0], [1.0, 3.0]], [[5.0, -2.0], [-2.0, 1.0]]
    # in 2-D: tr (AB)^1/2 = sqrt(tr AB + 2 sqrt(det A det B))
    cross = ((10 - 2) + (-2 + 3) + 2 * (5.0 * 1.0) ** 0.5) ** 0.5
    expected = 0.25 + 2 + 3 + 5 + 1 - 2 * cross
    p, q = gaussian([0.0, 0.5], a), gaussian([0.0, 0.0], b)
    assert frechet(p, q) == pytest.approx(expected, abs=1e-12)
    assert frechet(q, p) == pytest.approx(expected, abs=1e-12)


def test_agrees_with_the_general_matrix_root():
    x, y = random(300, 20, seed=0), random(300, 20, seed=1) + 0.3
    p, q = moments(x), moments(y)
    root = sqrtm((p.covariance @ q.covariance).numpy()).real
    expected = (p.mean - q.mean).square().sum() + (p.covariance + q.covariance).trace() - 2 * root.trace()
    assert frechet(p, q) == pytest.approx(float(expected), rel=1e-9)


def test_moments_are_those_of_numpy_s_convention():
    x = random(50, 6, seed=2)
    torch.testing.assert_close(moments(x).covariance, x.T.cov(), atol=1e-12, rtol=0)
    torch.testing.assert_close(moments(x.float()).mean, x.mean(dim=0), atol=1e-6, rtol=0)


def test_zero_for_equal_sets_and_unmoved_by_rotation_and_shift():
    x, y = random(400, 16, seed=3), random(400, 16, seed=4)
    assert frechet(moments(x), moments(x)) == pytest.approx(0, abs=1e-9)
    rotation = torch.linalg.qr(random(16, 16, seed=5)).Q
    before = frechet(moments(x), moments(y))
    assert before > 1
    assert frechet(moments(x @ rotation + 7), moments(y @ rotation + 7)) == pytest.approx(before, rel=1e-9)
    assert frechet(moments(3 * x), moments(3 * y)) == pytest.approx(9 * before, rel=1e-9)


def test_samples_of_two_gaussians_come_near_their_closed_form():
    # At n = 20 000 the squared shift has a standard error of 2 |dm| sqrt(3.25 / n) = 0.037, the rest less;
    # the bias is of the order of 20 / n.
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(20_000, 4, generator=generator)
    y = 1.5 * torch.randn(20_000, 4, generator=generator) + torch.tensor([1.0, -1.0, 0.25, 0.0])
    assert frechet(moments(x), moments(y)) == pytest.approx(2.0625 + 4 * 0.25, abs=0.12)


def test_no_more_samples_than_features_is_an_error():
    with pytest.raises(UserError, match=r"^objective\.samples: 20; fid on 20 features needs at least 21$"):
        moments(random(20, 20, seed=7))
    moments(random(21, 20, seed=7))

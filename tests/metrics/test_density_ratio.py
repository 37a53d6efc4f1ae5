"""KL and JSD by a classifier, against closed forms of Gaussians; two sets of one law; sets easily told apart."""

import math
from importlib import import_module

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from saddlepoint.errors import UserError
from saddlepoint.metrics import DensityRatio, density_ratio


def gaussian(n, dimension, mean, std, seed):
    return mean + std * torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed))


def jsd(p, q):
    """Of two laws on the line, by quadrature."""

    def integrand(x):
        a, b = p.pdf(x), q.pdf(x)
        return (a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b))) / 2

    return quad(integrand, -8, 9, epsabs=1e-10)[0]


@pytest.fixture(scope="module")
def shifted():
    """N(1, 1) against N(0, 1), three times as many of the one as of the other, and the true log p/q = x - 1/2."""
    p, q = gaussian(4500, 1, 1.0, 1.0, seed=0), gaussian(1500, 1, 0.0, 1.0, seed=1)
    exact = DensityRatio(p.flatten().double() - 0.5, q.flatten().double() - 0.5)
    return exact, density_ratio(p, q)


def test_closed_form_whatever_the_number_of_samples_on_each_side(shifted):
    exact, found = shifted
    # What the samples allow: with the true log ratio, of variance 1 on both sides, their means are KL within 4 errors.
    assert exact.kl_pq == pytest.approx(0.5, abs=4 / 4500**0.5)
    assert exact.kl_qp == pytest.approx(0.5, abs=4 / 1500**0.5)
    assert exact.jsd == pytest.approx(jsd(norm(1, 1), norm(0, 1)), abs=0.02)
    # What learning adds: three other pairs of seeds came within 0.06, 0.04 and 0.0015.
    assert found.kl_pq == pytest.approx(exact.kl_pq, abs=0.07)
    assert found.kl_qp == pytest.approx(exact.kl_qp, abs=0.07)
    assert found.jsd == pytest.approx(exact.jsd, abs=0.004)


def test_log_ratios_stand_where_their_samples_do(shifted):
    exact, found = shifted
    for true, learnt in ((exact.at_p, found.at_p), (exact.at_q, found.at_q)):
        assert learnt.shape == true.shape
        inside = true.abs() < 2  # beyond there are few samples to learn from
        assert (learnt - true)[inside].abs().mean() < 0.12


@pytest.mark.slow
def test_directions_and_the_one_that_comes_out_too_low():
    # N(1, 1/4) against N(0, 1): KL(p||q) = log 2 + 5/8 - 1/2, KL(q||p) = -log 2 + 4 - 1/2. q is the wider one, and a
    # quadratic log ratio is continued linearly where p has no samples.
    found = density_ratio(gaussian(3000, 1, 1.0, 0.5, seed=2), gaussian(2000, 1, 0.0, 1.0, seed=3))
    assert found.kl_pq == pytest.approx(math.log(2) + 1 / 8, abs=0.06)
    assert 1.6 < found.kl_qp < -math.log(2) + 3.5
    assert found.jsd == pytest.approx(jsd(norm(1, 0.5), norm(0, 1)), abs=0.02)


def test_two_sets_of_one_law_are_not_told_apart():
    # Few samples in many dimensions: each classifier learns its own by heart within a hundred steps.
    found = density_ratio(gaussian(300, 64, 0.0, 1.0, seed=4), gaussian(300, 64, 0.0, 1.0, seed=5))
    assert found.kl_pq == pytest.approx(0, abs=0.03)
    assert found.kl_qp == pytest.approx(0, abs=0.03)
    assert found.jsd == pytest.approx(0, abs=0.01)


def test_two_halves_of_the_digits(digits):
    found = density_ratio(digits.train, digits.heldout)
    assert found.kl_pq == pytest.approx(0, abs=0.05)
    assert found.jsd == pytest.approx(0, abs=0.02)


def test_what_is_easily_told_apart_comes_near_the_most_there_is(digits):
    noise = torch.randn(digits.train.shape, generator=torch.Generator().manual_seed(6))
    found = density_ratio((digits.train + 0.2 * noise).clamp(-1, 1), digits.heldout)
    assert 0.55 < found.jsd < math.log(2)
    assert found.kl_pq > 3
    assert found.kl_qp > 3


def test_the_same_bits_again_and_nobody_s_random_state(monkeypatch):
    module = import_module("saddlepoint.metrics.density_ratio")  # the function has its name
    p, q = gaussian(60, 3, 2.0, 1.0, seed=7), gaussian(50, 3, 0.0, 1.0, seed=8)
    before = torch.get_rng_state()
    monkeypatch.setattr(module, "STEPS", 100)
    first = density_ratio(p, q, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1234)
    torch.set_num_threads(2)
    with torch.no_grad():
        again = density_ratio(p.reshape(60, 3, 1), q.reshape(50, 3, 1), seed=3)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(first.at_p, again.at_p)
    assert torch.equal(first.at_q, again.at_q)
    assert not torch.equal(first.at_p, density_ratio(p, q, seed=4).at_p)


def test_rare_values_and_constant_coordinates_do_not_drown_what_there_is():
    # 40 coordinates that are 0 but for one sample in 150, where they are 100; one more that is always 5; and the first,
    # which alone differs: N(1, 1) and N(0, 1), of JSD 0.111. Taken as they are, the rare values cost two thirds of it.
    def samples(seed, mean):
        generator = torch.Generator().manual_seed(seed)
        x = 100.0 * (torch.rand(600, 42, generator=generator) < 1 / 150)
        x[:, 0] = mean + torch.randn(600, generator=generator)
        x[:, 1] = 5.0
        return x

    found = density_ratio(samples(9, 1.0), samples(10, 0.0))
    assert 0.05 < found.jsd < 0.13
    assert 0.4 < found.kl_pq < 0.65


def test_what_cannot_be_compared(refusal):
    fine = torch.zeros(60, 2)
    assert refusal(lambda: density_ratio(fine[:49], fine)) == "density_ratio: p has 49 samples; at least 50 are needed"
    assert refusal(lambda: density_ratio(fine, torch.full((60, 2), math.nan))) == (
        "density_ratio: q holds values that are not finite"
    )
    with pytest.raises(UserError, match=r"shape \(2,\) and \(3,\)"):
        density_ratio(fine, torch.zeros(60, 3))

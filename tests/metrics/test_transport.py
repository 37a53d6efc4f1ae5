"""EMD against the exact one-dimensional distance and the closed form of a shift."""

import pytest
import torch
from scipy.stats import wasserstein_distance

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.metrics import transport
from saddlepoint.metrics.transport import emd


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(300, 300), (200, 331), (1, 50)])
def test_one_dimension(n, m):
    x, y = normal(n, 1, seed=0), 2 * normal(m, 1, seed=1) - 0.5
    expected = wasserstein_distance(x.flatten().double(), y.flatten().double())
    assert emd(x, y) == pytest.approx(expected, abs=1e-9)


def test_a_shift_costs_its_length_whatever_the_shape():
    x = normal(100, 3, 4, 4, seed=2).double()
    shift = normal(3, 4, 4, seed=3).double()
    assert emd(x, x + shift) == pytest.approx(float(shift.norm()), rel=1e-9)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(4))
    assert emd(x, x[order]) == pytest.approx(0, abs=1e-6)


def test_a_plan_cut_short_is_no_distance(monkeypatch):
    monkeypatch.setattr(transport, "PIVOTS", 3)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(SaddleError, match="was not solved") as caught,
    ):
        emd(normal(50, 2, seed=5), normal(50, 2, seed=6))
    assert not isinstance(caught.value, UserError)


def test_nothing_to_move():
    with pytest.raises(UserError, match=r"^objective\.samples: 0"):
        emd(torch.zeros(0, 2), torch.zeros(3, 2))

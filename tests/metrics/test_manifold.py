"""Precision, recall, density, coverage and 1-NN on planted cases, by hand and by brute force."""

import pytest
import torch

from saddlepoint.errors import UserError
from saddlepoint.metrics import manifold as module
from saddlepoint.metrics.manifold import manifold, within


def normal(n, dimension, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimension, dtype=torch.float64, generator=generator)


def by_hand(real, fake, k):
    def distance(a, b):
        return float((a - b).norm())

    def neighbours(s):
        return [sorted(distance(a, b) for j, b in enumerate(s) if j != i) for i, a in enumerate(s)]

    own_real, own_fake = neighbours(real), neighbours(fake)
    between = [[distance(a, b) for b in fake] for a in real]
    balls = [sum(between[i][j] <= own_real[i][k - 1] for i in range(len(real))) for j in range(len(fake))]
    recalled = [any(between[i][j] <= own_fake[j][k - 1] for j in range(len(fake))) for i in range(len(real))]
    covered = [min(between[i]) <= own_real[i][k - 1] for i in range(len(real))]
    right = sum(own_real[i][0] < min(between[i]) for i in range(len(real)))
    right += sum(own_fake[j][0] < min(row[j] for row in between) for j in range(len(fake)))
    return {
        "precision": sum(n > 0 for n in balls) / len(fake),
        "recall": sum(recalled) / len(real),
        "density": sum(balls) / (k * len(fake)),
        "coverage": sum(covered) / len(real),
        "one_nn": right / (len(real) + len(fake)),
    }


def test_five_points_on_a_line():
    # k = 1. Real balls: 0 reaches 1, 1 reaches 1, 3 reaches 2. Fake balls: both reach 9.6.
    # 0.4 lies in two real balls, 10 in none; 3 finds no fake within 2; both fake balls reach reals.
    # Nearest neighbours: 0 and 1 take 0.4 (wrong), 3 takes 1 (right), 0.4 takes 0, 10 takes 3 (wrong).
    real, fake = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.4], [10.0]])
    scores = manifold(real, fake, k=1)
    assert scores == pytest.approx(
        {"precision": 1 / 2, "recall": 1, "density": 1, "coverage": 2 / 3, "one_nn": 1 / 5}, abs=1e-12
    )


@pytest.mark.parametrize("rows", [7, 1024])
def test_agrees_with_brute_force(monkeypatch, rows):
    monkeypatch.setattr(module, "ROWS", rows)
    real, fake = normal(40, 3, seed=0), 0.7 * normal(31, 3, seed=1) + 0.5
    expected = by_hand(real, fake, k=3)
    assert 0.1 < expected["recall"] < 0.9
    assert manifold(real, fake) == pytest.approx(expected, abs=1e-12)
    assert manifold(real, fake, within(real)) == pytest.approx(expected, abs=1e-12)


def test_identical_sets():
    x = normal(200, 5, seed=2)
    scores = manifold(x, x.clone())
    assert (scores["precision"], scores["recall"], scores["coverage"]) == (1, 1, 1)
    assert scores["one_nn"] == 0  # every sample is nearest to its own copy on the other side


def test_disjoint_sets():
    x = normal(200, 5, seed=3)
    apart = manifold(x, x + 100)
    assert apart == {"precision": 0, "recall": 0, "density": 0, "coverage": 0, "one_nn": 1}


def test_two_samples_of_one_law():
    # one_nn is a mean of 2000 coin flips, a little dependent: standard deviation about 0.013. E density = 1.
    scores = manifold(normal(1000, 4, seed=4), normal(1000, 4, seed=5))
    assert scores["one_nn"] == pytest.approx(0.5, abs=0.045)
    assert scores["density"] == pytest.approx(1, abs=0.1)
    assert scores["precision"] > 0.8
    assert scores["recall"] > 0.8


def test_collapse_fools_precision_but_not_recall_and_coverage():
    real = normal(500, 4, seed=6)
    fake = 0.01 * normal(500, 4, seed=7)
    scores = manifold(real, fake)
    assert scores["precision"] == 1
    assert scores["recall"] < 0.01
    assert scores["coverage"] < 0.1


def test_a_tie_counts_one_half():
    # 0 is as far from 1 as from -1; every other sample has its own kind nearer.
    real, fake = torch.tensor([[0.0], [-1.0], [-1.5]]), torch.tensor([[1.0], [1.25]])
    assert manifold(real, fake, k=1)["one_nn"] == 4.5 / 5


def test_neighbours_need_more_than_k_samples():
    few, enough = normal(3, 2, seed=8), normal(4, 2, seed=9)
    for real, fake in ((few, enough), (enough, few)):
        with pytest.raises(UserError, match=r"^objective\.samples: 3; 3 nearest neighbours need at least 4$"):
            manifold(real, fake)

"""digits against scikit-learn's own arrays; ring and grid against the law they are drawn from."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from saddlepoint.data import load
from saddlepoint.errors import UserError


def rows(images):
    return sorted(images.flatten(1).tolist())


def test_digits_are_the_real_ones_in_two_halves():
    data = load("digits")
    assert data.kind == "image"
    assert data.train.shape == (898, 1, 8, 8)
    assert data.heldout.shape == (899, 1, 8, 8)
    assert data.classes == 10
    grey = (torch.cat([data.train, data.heldout]) + 1) * 8
    original = load_digits()
    assert rows(grey) == sorted(original.data.tolist())
    assert float(grey.min()) == 0
    assert float(grey.max()) == 16


def test_digits_labels_belong_to_their_images():
    data, original = load("digits", seed=4), load_digits()
    label = {tuple(image): target for image, target in zip(original.data, original.target, strict=True)}
    for images, labels in ((data.train, data.train_labels), (data.heldout, data.heldout_labels)):
        grey = ((images + 1) * 8).flatten(1).tolist()
        assert [label[tuple(image)] for image in grey] == labels.tolist()
    difference = data.train_labels.bincount() - data.heldout_labels.bincount()
    assert int(difference.abs().max()) <= 1


def test_digits_split_is_fixed_by_the_seed():
    # The fingerprint is pinned: scores of different days compare only if this split never moves.
    pinned = "a7d4451581eee927e76f6dff920d0604e90baaf1ac1f9948f70c32f102afc71b"
    assert load("digits").fingerprint == load("digits", seed=0).fingerprint == pinned
    assert load("digits", seed=1).fingerprint != pinned


@pytest.mark.parametrize(
    ("name", "means", "std"),
    [
        ("ring", [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)], 0.01),
        ("grid", [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)], 0.05),
    ],
)
def test_mixtures_follow_their_law(name, means, std):
    data = load(name)
    means = torch.tensor(means, dtype=torch.float64)
    torch.testing.assert_close(data.mixture.means, means, atol=1e-12, rtol=0)
    assert data.mixture.std == std
    assert data.train.shape == (100_000, 2)
    assert data.heldout.shape == (10_000, 2)
    for half in (data.train.double(), data.heldout.double()):
        mode = torch.cdist(half, means).argmin(dim=1)
        shares = mode.bincount(minlength=len(means)) / len(half)
        p = 1 / len(means)
        assert float((shares - p).abs().max()) < 4.5 * math.sqrt(p * (1 - p) / len(half))
        deviation = (half - means[mode]) / std
        assert float(deviation.mean(dim=0).abs().max()) < 4.5 / math.sqrt(len(half))
        covariance = deviation.T.cov()
        torch.testing.assert_close(
            covariance, torch.eye(2, dtype=torch.float64), atol=4.5 * math.sqrt(2 / len(half)), rtol=0
        )


def test_mixture_halves_are_different_draws_fixed_by_the_seed():
    data = load("ring", train=500, heldout=500)
    assert not np.isin(data.heldout.numpy(), data.train.numpy()).any()
    assert load("ring", train=500, heldout=500).fingerprint == data.fingerprint
    assert load("ring", train=500, heldout=500, seed=1).fingerprint != data.fingerprint
    longer = load("ring", train=500, heldout=700)
    assert torch.equal(longer.train, data.train)


def test_mixture_options():
    data = load("ring", modes=3, radius=2, std=0.1, train=10, heldout=20, seed=9)
    assert data.mixture.means.shape == (3, 2)
    assert data.mixture.means.norm(dim=1).tolist() == pytest.approx([2, 2, 2])
    data = load("grid", side=2, spacing=1.0, train=10, heldout=20)
    assert sorted(data.mixture.means.tolist()) == [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ring", {"modes": 0}),
        ("ring", {"radius": math.nan}),
        ("ring", {"std": 0}),
        ("grid", {"side": 0}),
        ("grid", {"spacing": -1.0}),
        ("grid", {"std": math.inf}),
        ("grid", {"train": 0}),
        ("grid", {"heldout": 0}),
        ("grid", {"seed": -1}),
        ("digits", {"seed": -1}),
    ],
)
def test_options_that_cannot_be(name, options):
    (option,) = options
    with pytest.raises(UserError, match=f"^data.{option}: "):
        load(name, **options)

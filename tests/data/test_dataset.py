"""What `Dataset.build` lets through, what the fingerprint depends on, and how halves are dealt."""

import numpy as np
import pytest
import torch

from saddlepoint.data import Dataset, Mixture
from saddlepoint.data.dataset import halves
from saddlepoint.errors import UserError

IMAGES = torch.linspace(-1, 1, 4 * 1 * 2 * 2).reshape(4, 1, 2, 2)
LABELS = torch.tensor([0, 1, 0, 1])


def build(**changes):
    content = {
        "name": "toy",
        "kind": "image",
        "train": IMAGES,
        "heldout": IMAGES.flip(0),
        "train_labels": LABELS,
        "heldout_labels": LABELS,
        "classes": 2,
    }
    return Dataset.build(**(content | changes))


def test_build_keeps_its_tensors_and_moves_them():
    data = build()
    assert data.sample_shape == (1, 2, 2)
    moved = data.to("meta")
    assert moved.train.device.type == moved.heldout_labels.device.type == "meta"
    assert moved.fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": IMAGES.double()}, "float32"),
        ({"train": IMAGES[:0]}, "(0, 1, 2, 2)"),
        ({"train": IMAGES[:, 0]}, "(N, C, H, W)"),
        ({"heldout": IMAGES * 1.01}, "from -1.01 to 1.01"),
        ({"heldout": torch.full_like(IMAGES, torch.nan)}, "not finite"),
        ({"heldout": torch.full_like(IMAGES, torch.inf)}, "not finite"),
        ({"heldout": IMAGES.reshape(4, 1, 1, 4)}, "differ in shape: (1, 2, 2) and (1, 1, 4)"),
        ({"train_labels": None}, "labels of both halves"),
        ({"classes": None}, "labels of both halves"),
        ({"train_labels": LABELS.int()}, "train_labels must be int64"),
        ({"heldout_labels": LABELS[:3]}, "heldout_labels must be int64, one for each"),
        ({"heldout_labels": LABELS + 1}, "heldout_labels must lie in 0..1"),
        ({"train_labels": LABELS - 1}, "train_labels must lie in 0..1"),
        ({"mixture": Mixture(torch.zeros(3, 2), 0.1)}, "a mixture needs points"),
    ],
)
def test_build_refuses(changes, says):
    with pytest.raises(UserError) as caught:
        build(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mixture_must_fit_its_points():
    points = {"train": torch.zeros(3, 2), "heldout": torch.ones(3, 2)}
    Dataset.build("toy", "points", **points, mixture=Mixture(torch.zeros(4, 2), 0.1))
    for wrong in (Mixture(torch.zeros(4, 3), 0.1), Mixture(torch.zeros(4, 2), 0.0)):
        with pytest.raises(UserError, match="a mixture needs"):
            Dataset.build("toy", "points", **points, mixture=wrong)


def test_fingerprint_is_of_the_content_and_not_of_the_name():
    assert build(name="other").fingerprint == build().fingerprint
    pixel = IMAGES.clone()
    pixel[3, 0, 1, 1] = 0.5
    points = {"kind": "points", "train_labels": None, "heldout_labels": None, "classes": None}
    flat = points | {"train": IMAGES.reshape(4, 4), "heldout": IMAGES.reshape(4, 4)}
    prints = {
        build().fingerprint,
        build(train=pixel).fingerprint,
        build(heldout=pixel).fingerprint,
        build(train=IMAGES.flip(0), heldout=IMAGES).fingerprint,
        build(train_labels=1 - LABELS).fingerprint,
        build(heldout_labels=1 - LABELS).fingerprint,
        build(classes=3).fingerprint,
        build(train=IMAGES.reshape(4, 1, 1, 4), heldout=IMAGES.reshape(4, 1, 1, 4)).fingerprint,
        build(train_labels=None, heldout_labels=None, classes=None).fingerprint,
        build(**flat).fingerprint,
        build(**flat, mixture=Mixture(torch.zeros(1, 4), 0.1)).fingerprint,
        build(**flat, mixture=Mixture(torch.zeros(1, 4), 0.2)).fingerprint,
        build(**flat, mixture=Mixture(torch.ones(1, 4), 0.1)).fingerprint,
    }
    assert len(prints) == 13


class Rows:
    """A stream, to `Dataset.build`."""

    def __init__(self, fingerprint):
        self.fingerprint = fingerprint

    def __len__(self):
        return 100

    def epoch(self, seed, start=0):
        return iter(())


def test_a_stream_is_kept_and_is_part_of_the_fingerprint():
    stream = Rows("a")
    data = build(stream=stream)
    assert data.stream is data.to("meta").stream is stream
    prints = {build(stream=given).fingerprint for given in (None, stream, Rows("a"), Rows("b"))}
    assert len(prints) == 3


@pytest.mark.parametrize("n", [2, 7, 100])
def test_halves_part_everything_once(n):
    train, heldout = halves(n, seed=3)
    assert len(train) == n // 2
    assert sorted([*train, *heldout]) == list(range(n))
    again = halves(n, seed=3)
    assert np.array_equal(again[0], train)
    assert np.array_equal(again[1], heldout)


def test_halves_depend_on_the_seed_and_stay_shuffled():
    train, heldout = halves(100, seed=0)
    assert not np.array_equal(train, halves(100, seed=1)[0])
    assert not np.array_equal(np.sort(heldout), heldout)


def test_halves_are_stratified_by_label():
    labels = np.repeat([0, 1, 2], [51, 7, 42])
    train, heldout = halves(100, 5, labels)
    difference = np.bincount(labels[train]) - np.bincount(labels[heldout])
    assert np.abs(difference).max() <= 1
    with pytest.raises(UserError, match=r"^data\.seed: "):
        halves(100, -1)

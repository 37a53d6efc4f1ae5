"""The four points: one lit pixel each, equally often, and labels that say which."""

from collections.abc import Callable

import pytest
import torch

from saddlepoint import data
from saddlepoint.data.four_points import four_points
from saddlepoint.metrics.latent import is_binary


def test_every_image_has_one_lit_pixel_and_its_label_says_which() -> None:
    points = data.load("four_points", train=40, heldout=12)
    for images, labels in ((points.train, points.train_labels), (points.heldout, points.heldout_labels)):
        assert labels is not None
        assert images.shape[1:] == (1, 2, 2)
        assert is_binary(images)
        assert torch.equal((images == 1).flatten(1).sum(1), torch.ones(len(images), dtype=torch.int64))
        assert torch.equal(images.flatten(1).argmax(1), labels)
        assert torch.bincount(labels).tolist() == [len(images) // 4] * 4
    assert (points.kind, points.classes, len(points.train), len(points.heldout)) == ("image", 4, 40, 12)


def test_nothing_is_drawn() -> None:
    state = torch.get_rng_state()
    assert four_points().fingerprint == four_points().fingerprint != four_points(train=4100).fingerprint
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("option", "value"), [("train", 10), ("heldout", 0), ("train", -4)])
def test_other_numbers_are_refused(option: str, value: int, refusal: Callable[[Callable[[], object]], str]) -> None:
    said = refusal(lambda: data.load("four_points", **{option: value}))
    assert said == f"data.{option}: {value} cannot be; it must be a multiple of 4, at least 4"

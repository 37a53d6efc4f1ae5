"""The image pool: what comes back and what stays, that nothing is shared, and that it goes on where it stopped."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saddlepoint.training import checkpoint
from saddlepoint.training.pool import ImagePool


def numbered(start: int, n: int) -> Tensor:
    """n images of one pixel, which holds their number."""
    return torch.arange(start, start + n, dtype=torch.float32).reshape(n, 1, 1, 1)


def pool(size: int, seed: int = 0) -> ImagePool:
    return ImagePool(size, torch.Generator().manual_seed(seed))


def numbers(images: Tensor | None) -> list[int]:
    assert images is not None
    return [int(image) for image in images.flatten()]


def test_until_it_is_full_every_image_is_stored_and_comes_back_as_it_is() -> None:
    held = pool(5)
    assert numbers(held.query(numbered(0, 2))) == [0, 1]
    assert numbers(held.query(numbered(2, 3))) == [2, 3, 4]
    assert numbers(held.images) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_image_by_image_it_is_the_list_of_the_authors(size: int) -> None:
    """A list, a coin and a place for each image, in turn; the same coins and places are drawn here."""
    held, rng = pool(size, seed=3), torch.Generator().manual_seed(3)
    stored: list[int] = []
    for start in range(0, 400, 8):
        coins, places = torch.rand(8, generator=rng), torch.randint(size, (8,), generator=rng)
        expected = []
        for row in range(8):
            image = start + row
            if len(stored) < size:
                stored.append(image)
                expected.append(image)
            elif coins[row] > 0.5:
                place = int(places[row])
                expected.append(stored[place])
                stored[place] = image
            else:
                expected.append(image)
        assert numbers(held.query(numbered(start, 8))) == expected
    assert numbers(held.images) == stored


def test_half_are_exchanged_each_place_as_often_and_nothing_is_lost() -> None:
    size, n = 10, 20_000
    held = pool(size)
    given = numbered(0, n)
    returned = numbers(torch.cat([held.query(part) for part in torch.split(given, 50)]))
    assert Counter(returned) + Counter(numbers(held.images)) == Counter(range(n)) + Counter(range(size))
    old = [image != row for row, image in enumerate(returned)][size:]
    assert sum(old) / len(old) == pytest.approx(0.5, abs=0.011)  # 3 standard deviations
    ages = [row - image for row, image in enumerate(returned) if row >= 1000 and row != image]
    assert sum(ages) / len(ages) == pytest.approx(2 * size, rel=0.05)  # a place waits 2 * size images for its turn


def test_nothing_is_shared_with_the_caller_and_no_graph_is_kept() -> None:
    held = pool(2)
    images = numbered(0, 2).requires_grad_()
    answer = held.query(images * 1)
    assert held.images is not None
    assert not held.images.requires_grad
    assert not answer.requires_grad
    answer.fill_(-1)
    with torch.no_grad():
        images.fill_(-1)
    assert numbers(held.images) == [0, 1]
    before = torch.full((2, 1, 1, 1), 7.0)
    while 7 not in numbers(held.images):
        held.query(before)
    before.fill_(9)
    assert 9 not in numbers(held.images)


@pytest.mark.parametrize("queries", [0, 1, 7])  # none yet, half full, full
def test_a_pool_from_a_checkpoint_goes_on_bit_for_bit(queries: int, tmp_path: Path) -> None:
    ongoing = pool(12)
    for start in range(queries):
        ongoing.query(torch.full((6, 2, 4, 4), float(start)).normal_())
    checkpoint.save(tmp_path / "pool.pt", {"pool": ongoing.state_dict()})
    state = checkpoint.load(tmp_path / "pool.pt")
    assert state is not None
    restored, again = pool(12, seed=99), pool(12, seed=98)
    restored.load_state_dict(state["pool"])
    for _ in range(10):
        images = torch.randn(6, 2, 4, 4)
        assert torch.equal(ongoing.query(images), restored.query(images))
    again.load_state_dict(state["pool"])  # which none of these queries has touched
    if queries:
        assert torch.equal(again.query(images[:0]), images[:0])
        assert again.images is not None
        assert len(again.images) == min(12, 6 * queries)


def test_a_state_is_a_snapshot() -> None:
    held = pool(3)
    held.query(numbered(0, 3))
    state = held.state_dict()
    for start in range(3, 60, 3):
        held.query(numbered(start, 3))
    assert numbers(state["images"]) == [0, 1, 2]

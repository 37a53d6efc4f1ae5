"""Every sample once an epoch, in a new order each time; a restored position shows the same data go by."""

import pytest
import torch

from saddlepoint.errors import UserError
from saddlepoint.training.batches import Batches

X = torch.arange(10.0)[:, None]


def batches(size: int, seed: int = 0) -> Batches:
    return Batches(X, torch.arange(10) * 10, size, torch.Generator().manual_seed(seed))


def epoch(source: Batches, n: int) -> list[float]:
    return [float(x) for _ in range(n) for x in source().x]


def test_each_sample_comes_once_an_epoch_and_the_order_changes() -> None:
    source = batches(5)
    first, second = epoch(source, 2), epoch(source, 2)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_the_rest_that_fills_no_batch_is_dropped_and_differs_from_epoch_to_epoch() -> None:
    source = batches(4)
    left = []
    for _ in range(20):
        seen = epoch(source, 2)
        assert len(set(seen)) == 8
        left.append(frozenset(range(10)) - frozenset(seen))
    assert len(set(left)) > 5
    assert frozenset().union(*left) == frozenset(range(10))


def test_labels_stay_with_their_samples() -> None:
    batch = batches(6)()
    assert batch.y is not None
    assert torch.equal(batch.x.squeeze(1) * 10, batch.y.float())
    assert Batches(X, None, 6, torch.Generator())().y is None


def test_the_seed_is_the_order() -> None:
    assert epoch(batches(5), 4) == epoch(batches(5), 4)
    assert epoch(batches(5), 2) != epoch(batches(5, seed=1), 2)


@pytest.mark.parametrize("drawn", range(6))
def test_a_restored_position_goes_on_within_the_epoch_and_into_the_next(drawn: int) -> None:
    source = batches(4)
    epoch(source, drawn)
    state = source.state_dict()
    expected = epoch(source, 7)
    other = batches(4, seed=99)
    epoch(other, 1)
    other.load_state_dict(state)
    assert epoch(other, 7) == expected


def test_a_batch_as_large_as_the_data_is_one_epoch() -> None:
    assert sorted(epoch(batches(10), 1)) == list(range(10))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError) as error:
        batches(11)
    assert str(error.value) == ("training.batch_size: 11 is larger than the training half of the data, 10 samples")

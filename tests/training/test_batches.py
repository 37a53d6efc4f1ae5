"""Every sample once an epoch, in a new order each time; a restored position shows the same data go by."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch

from saddlepoint.data import Dataset, join
from saddlepoint.errors import UserError
from saddlepoint.training.batches import Batches, StreamedBatches
from saddlepoint.training.batches import batches as source_of

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


class Pieces:
    """The samples of X in an order that the seed fixes, three at a time."""

    fingerprint = "pieces"
    opened: ClassVar[list[int]] = []

    def __len__(self) -> int:
        return len(X)

    def epoch(self, seed: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.opened.append(start)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[start:]
        for rows in torch.split(order, 3):
            yield X[rows], rows * 10


def streamed(size: int, seed: int = 0) -> StreamedBatches:
    return StreamedBatches(Pieces(), size, torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 2, 4, 5, 10])
def test_a_stream_gives_each_sample_once_an_epoch_whatever_its_pieces(size: int) -> None:
    source, seen = streamed(size), []
    for _ in range(4):
        samples, labels = [], []
        for _ in range(10 // size):
            batch = source()
            assert batch.x.shape == (size, 1)
            assert batch.y is not None
            samples += batch.x.squeeze(1).tolist()
            labels += batch.y.tolist()
        assert len(set(samples)) == 10 // size * size
        assert labels == [10 * sample for sample in samples]
        seen.append(samples)
    assert len({tuple(samples) for samples in seen}) == 4


@pytest.mark.parametrize("drawn", range(6))
def test_a_restored_stream_goes_on_where_it_was_and_leaves_out_what_it_has_shown(drawn: int) -> None:
    source = streamed(4)
    for _ in range(drawn):
        source()
    state = source.state_dict()
    expected = [source().x.tolist() for _ in range(7)]
    other = streamed(4, seed=99)
    other()
    Pieces.opened.clear()
    other.load_state_dict(state)
    assert [other().x.tolist() for _ in range(7)] == expected
    assert Pieces.opened[0] == state["cursor"] or state["cursor"] > 6  # then no whole batch is left of that epoch


def test_two_domains_go_by_in_orders_of_their_own() -> None:
    images = torch.linspace(-1, 1, 10)[:, None, None, None].expand(10, 1, 2, 2)
    domain = Dataset.build("one", "image", images, images[:4])
    both = source_of(join("both", domain, domain), 5, 0, torch.device("cpu"))
    batches = [both() for _ in range(4)]
    assert all(batch.y is not None and batch.x.shape == batch.y.shape == (5, 1, 2, 2) for batch in batches)
    assert not any(batch.y is not None and torch.equal(batch.x, batch.y) for batch in batches)
    for epoch_of in (batches[:2], batches[2:]):
        for side in (0, 1):
            seen = torch.cat([batch[side] for batch in epoch_of])[:, 0, 0, 0]  # type: ignore[misc]
            assert torch.equal(seen.sort().values, images[:, 0, 0, 0])
    state = both.state_dict()
    expected = [both() for _ in range(3)]
    both.load_state_dict(state)
    for batch, again in zip(expected, [both() for _ in range(3)], strict=True):
        assert torch.equal(batch.x, again.x)
        assert batch.y is not None
        assert again.y is not None
        assert torch.equal(batch.y, again.y)

"""Streams: each row once, in an order that the seed fixes, a block at a time; resumed without reading what is past."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from saddlepoint.data import load
from saddlepoint.data.parquet.halves import OfTensors
from saddlepoint.data.parquet.shards import Shards
from saddlepoint.data.parquet.writer import write_shards

MEMORY = {"memory_mb": 1}  # 700 rows take 2.1 MB; a quarter of 1 MB holds 341 of them as uint8, and 6 row groups


def epoch(data, seed=0, start=0):
    pieces = list(data.stream.epoch(seed, start))
    samples = torch.cat([samples for samples, _ in pieces])
    return samples, None if pieces[0][1] is None else torch.cat([labels for _, labels in pieces])


@pytest.fixture
def streamed(many):
    return load("parquet", path=str(many), heldout=100, **MEMORY)


def test_what_is_larger_than_the_memory_is_streamed(many, numbers, streamed):
    whole = load("parquet", path=str(many), heldout=100)
    assert whole.stream is None
    assert len(whole.train) == len(streamed.stream) == 600
    assert torch.equal(streamed.heldout, whole.heldout)
    assert len(streamed.train) == 85  # rows of 3 kB in a quarter of 1 MB
    assert set(numbers(streamed.train)) <= set(numbers(whole.train))
    assert [number % 7 for number in numbers(streamed.train)] == streamed.train_labels.tolist()
    assert streamed.classes == 7


def test_every_row_comes_once_with_its_label_and_no_held_out_one(streamed, numbers):
    samples, labels = epoch(streamed)
    assert samples.dtype == torch.float32
    assert labels.dtype == torch.int64
    seen = numbers(samples)
    assert sorted(seen + numbers(streamed.heldout)) == list(range(700))
    assert [number % 7 for number in seen] == labels.tolist()


def test_samples_are_those_of_the_whole_set(many, streamed, numbers):
    whole = load("parquet", path=str(many), heldout=100)
    by_number = dict(zip(numbers(whole.train), whole.train, strict=True))
    samples, _ = epoch(streamed)
    assert all(torch.equal(sample, by_number[number]) for number, sample in zip(numbers(samples), samples, strict=True))


def test_the_order_is_the_seed_s_and_is_shuffled(many, streamed, numbers):
    first = epoch(streamed, seed=3)
    again = epoch(load("parquet", path=str(many), heldout=100, **MEMORY), seed=3)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    orders = [numbers(epoch(streamed, seed)[0]) for seed in (3, 4)]
    assert orders[0] != orders[1]
    for order in orders:
        groups = [number // 50 for number in order[:300]]  # of the first block
        assert len(set(groups)) >= 6
        assert max(np.bincount(groups[:50])) < 25  # not one row group after the other
        assert abs(np.corrcoef(order[:300], np.arange(300))[0, 1]) < 0.2


@pytest.mark.parametrize("start", [0, 1, 85, 299, 300, 301, 340, 599])
def test_a_late_start_gives_the_rest(streamed, start):
    whole, labels = epoch(streamed, seed=5)
    rest, rest_labels = epoch(streamed, seed=5, start=start)
    assert torch.equal(rest, whole[start:])
    assert torch.equal(rest_labels, labels[start:])


def test_a_start_at_the_end_gives_nothing(streamed):
    assert list(streamed.stream.epoch(5, 600)) == []


@pytest.fixture
def rows_read(monkeypatch):
    """The numbers of the rows that were read, as they are read."""
    rows, read = [], Shards.read

    def noted(self, column, wanted, at_once):
        for numbers, values in read(self, column, wanted, at_once):
            rows.extend(numbers.tolist())
            yield numbers, values

    monkeypatch.setattr(Shards, "read", noted)
    return rows


def test_one_block_is_read_at_a_time(streamed, rows_read):
    given = 0
    for samples, _ in streamed.stream.epoch(1):
        assert given < len(rows_read) <= given + 341
        given += len(samples)
    assert sorted(rows_read) == sorted(set(rows_read))


def test_a_block_that_is_past_is_unread(many, rows_read, numbers):
    data = load("parquet", path=str(many), heldout=str(many / "part-1.parquet"), **MEMORY)
    order = numbers(epoch(data, seed=1)[0])
    later = [number - 50 * (number >= 350) for number in order[300:]]  # row numbers: the held-out file has none
    for start in (300, 310):
        rows_read.clear()
        assert numbers(epoch(data, seed=1, start=start)[0]) == order[start:]
        assert sorted(rows_read) == sorted(later)  # of the first block, 6 whole row groups, nothing


def test_rows_of_a_block_are_shuffled_anew_by_each_seed(many, numbers):
    data = load("parquet", path=str(many), heldout=str(many / "part-1.parquet"), **MEMORY)
    ranks = [np.argsort(numbers(epoch(data, seed)[0])[:300]).tolist() for seed in range(3)]
    assert ranks[0] != ranks[1] != ranks[2] != ranks[0]


def test_a_row_group_larger_than_a_block_comes_in_parts(tmp_path, numbered, numbers, arrays):
    pq.write_table(arrays(numbered(range(900))), tmp_path / "x.parquet")
    data = load("parquet", path=str(tmp_path / "x.parquet"), heldout=50, **MEMORY)
    assert pq.read_metadata(tmp_path / "x.parquet").num_row_groups == 1
    samples, labels = epoch(data)
    assert labels is None
    assert sorted(numbers(samples) + numbers(data.heldout)) == list(range(900))
    assert torch.equal(epoch(data, start=500)[0], samples[500:])


@pytest.mark.parametrize("kind", ["float32", "png"])
def test_other_columns_are_streamed_too(tmp_path, numbered, numbers, arrays, kind, encoded):
    levels = numbered(range(500))
    pixels = levels.astype(np.float32) / np.float32(127.5) - 1
    table = arrays(pixels) if kind == "float32" else pa.table({"image": encoded(levels)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=40)
    data = load("parquet", path=str(tmp_path / "x.parquet"), heldout=20, **MEMORY)
    samples, _ = epoch(data)
    order = numbers(samples)
    assert sorted(order + numbers(data.heldout)) == list(range(500))
    assert torch.equal(samples, torch.from_numpy(pixels)[order])


def test_points_are_streamed_too(tmp_path):
    points = np.random.default_rng(0).standard_normal((100_000, 4)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(points.reshape(-1)), 4)
    pq.write_table(pa.table({"sample": lists}), tmp_path / "x.parquet", row_group_size=1024)
    data = load("parquet", path=str(tmp_path / "x.parquet"), heldout=1000, **MEMORY)
    samples, _ = epoch(data)
    assert data.train.shape == (5000, 4)
    assert sorted(torch.cat([samples, data.heldout]).tolist()) == sorted(points.tolist())


def test_the_sample_is_of_all_row_groups(many):
    data = load("parquet", path=str(many), heldout=str(many / "part-1.parquet"), **MEMORY, label=None)
    assert len(data.stream) == 650
    levels = ((data.train.flatten(1)[:, :2] + 1) * 127.5).round().long()
    groups = ((levels[:, 0] * 256 + levels[:, 1]) // 50).tolist()
    assert len(set(groups)) >= 11  # of 13; 85 rows
    assert groups != sorted(groups)


def test_the_fingerprint_is_of_all_that_an_import_wrote(tmp_path, numbered, numbers):
    """One pixel that neither the sample nor the held-out half shows, in files of equal size."""
    prints = {}
    for name, change in (("same", 0), ("other", 1)):
        levels = numbered(range(700))
        levels[350, 2, 9, 9] ^= change
        (tmp_path / name).mkdir()
        half = OfTensors(torch.from_numpy(levels).float() / 127.5 - 1, None, np.uint8)
        write_shards(tmp_path / name, "train", half, {}, "array", 300, lambda rows: None)
        data = load("parquet", path=str(tmp_path / name), heldout=100, **MEMORY)
        assert 350 not in numbers(data.train) + numbers(data.heldout)
        prints[name] = data.fingerprint
    again = load("parquet", path=str(tmp_path / "same"), heldout=100, **MEMORY)
    assert again.fingerprint == prints["same"] != prints["other"]
    assert load("parquet", path=str(tmp_path / "same"), heldout=101, **MEMORY).fingerprint != prints["same"]

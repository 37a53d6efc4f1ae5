"""What Parquet sets are read as: columns, shapes, halves, labels, and where the files may lie."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import fs

from saddlepoint.data import load
from saddlepoint.data.parquet import shards
from saddlepoint.errors import SaddleError, UserError


def both(data):
    return torch.cat([data.train, data.heldout])


def in_order(data, numbers):
    """All samples, by their numbers."""
    samples = both(data)
    return samples[torch.tensor(numbers(samples)).argsort()]


def test_levels_become_pixels_bit_for_bit(tmp_path, numbered, numbers, arrays):
    images = numbered(range(40))
    pq.write_table(arrays(images), tmp_path / "x.parquet")
    data = load("parquet", path=str(tmp_path / "x.parquet"))
    assert (data.name, data.kind, data.classes, data.stream) == ("x", "image", None, None)
    assert data.train.shape == data.heldout.shape == (20, 3, 16, 16)
    assert torch.equal(in_order(data, numbers), torch.from_numpy(images).float() / 127.5 - 1)


@pytest.mark.parametrize("listed", [pa.list_, pa.large_list])
def test_lists_of_any_kind(tmp_path, numbered, numbers, arrays, listed):
    table = arrays(numbered(range(40)))
    cast = table.set_column(0, "image", table["image"].cast(listed(pa.uint8())))
    for index, content in enumerate((table, cast)):
        pq.write_table(content, tmp_path / f"{index}.parquet")
    first, second = (load("parquet", path=str(tmp_path / f"{index}.parquet")) for index in range(2))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images(tmp_path, numbered, numbers, encoded, kind, channels):
    images = numbered(range(30), (channels, 16, 16))
    contents = encoded(images)
    column = {
        "binary": lambda: pa.array(contents),
        "large_binary": lambda: pa.array(contents, pa.large_binary()),
        "struct": lambda: pa.array([{"bytes": content, "path": None} for content in contents]),
    }[kind]()
    pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet", row_group_size=7)
    data = load("parquet", path=str(tmp_path / "x.parquet"))
    assert torch.equal(in_order(data, numbers), torch.from_numpy(images).float() / 127.5 - 1)
    resized = load("parquet", path=str(tmp_path / "x.parquet"), size=8, channels=3)
    assert resized.sample_shape == (3, 8, 8)


def test_encoded_images_are_fitted_as_in_a_folder(tmp_path, encoded):
    rng = np.random.default_rng(0)
    contents = encoded(rng.integers(0, 256, (3, 12 + index, 20), dtype=np.uint8) for index in range(6))
    for index, content in enumerate(contents):
        (tmp_path / f"{index}.png").write_bytes(content)
    pq.write_table(pa.table({"image": contents}), tmp_path / "x.parquet")
    folder = load("image_folder", path=str(tmp_path), size=9, channels=1)
    table = load("parquet", path=str(tmp_path / "x.parquet"), size=9, channels=1)
    rows = [sorted(image.flatten().tolist() for image in both(data)) for data in (folder, table)]
    assert rows[0] == rows[1]


def test_numbers_are_used_as_they_are(tmp_path, arrays):
    images = np.random.default_rng(0).uniform(-1, 1, (10, 1, 4, 4)).astype(np.float32)
    pq.write_table(arrays(images), tmp_path / "x.parquet")
    data = load("parquet", path=str(tmp_path / "x.parquet"), heldout=3)
    assert sorted(both(data).flatten(1).tolist()) == sorted(images.reshape(10, -1).tolist())
    assert len(data.heldout) == 3


@pytest.mark.parametrize("written", [None, "5"])
def test_points(tmp_path, written):
    points = np.random.default_rng(0).standard_normal((10, 5)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(points.reshape(-1)), 5)
    table = pa.table({"sample": lists}).replace_schema_metadata({"shape": written} if written else {})
    pq.write_table(table, tmp_path / "x.parquet")
    data = load("parquet", path=str(tmp_path / "x.parquet"))
    assert data.kind == "points"
    assert sorted(both(data).tolist()) == sorted(points.tolist())


def test_what_generate_writes_can_be_read(tmp_path, arrays):
    """A column `sample`; the column `label` only of a conditional generator."""
    samples = np.random.default_rng(0).uniform(-1, 1, (8, 1, 4, 4)).astype(np.float32)
    for name, more in (("x", {}), ("y", {"label": pa.array(np.arange(8))})):
        pq.write_table(arrays(samples, "sample", **more), tmp_path / f"{name}.parquet")
        for column in (None, "sample"):
            data = load("parquet", path=str(tmp_path / f"{name}.parquet"), image=column)
            assert sorted(both(data).flatten(1).tolist()) == sorted(samples.reshape(8, -1).tolist())
            assert data.classes == (8 if more else None)


def test_labels_go_with_their_images(many, numbers):
    data = load("parquet", path=str(many))
    assert data.classes == 7
    for images, labels in ((data.train, data.train_labels), (data.heldout, data.heldout_labels)):
        assert [number % 7 for number in numbers(images)] == labels.tolist()
    assert load("parquet", path=str(many), label=None).classes is None


def test_how_many_classes_there_are_stands_in_the_metadata(tmp_path, numbered, arrays):
    label = pa.array(np.arange(20) % 3)
    hugging_face = {"info": {"features": {"label": {"names": list("abcdef"), "_type": "ClassLabel"}}}}
    for name, facts, classes in (
        ("none", {}, 3),
        ("ours", {"classes": json.dumps(["a", "b", "c", "d"])}, 4),
        ("theirs", {"huggingface": json.dumps(hugging_face)}, 6),
        ("other", {"huggingface": "{}"}, 3),
    ):
        pq.write_table(arrays(numbered(range(20)), facts=facts, label=label), tmp_path / f"{name}.parquet")
        assert load("parquet", path=str(tmp_path / f"{name}.parquet")).classes == classes


def test_the_halves_part_all_rows_by_the_seed(many, numbers):
    data = load("parquet", path=str(many), heldout=200)
    held, rest = numbers(data.heldout), numbers(data.train)
    assert len(held) == 200
    assert sorted(held + rest) == list(range(700))
    assert load("parquet", path=str(many), heldout=200).fingerprint == data.fingerprint
    assert numbers(load("parquet", path=str(many), heldout=200, seed=1).heldout) != held
    assert len(load("parquet", path=str(many), heldout=0.1).heldout) == 70
    assert len(load("parquet", path=str(many)).heldout) == 350


@pytest.mark.parametrize("word", ["heldout", "test", "validation"])
def test_held_out_files_are_known_by_their_names(tmp_path, numbered, numbers, arrays, word):
    for name, rows in (("train-0", range(20)), ("train-1", range(20, 40)), (f"{word}-0", range(40, 50))):
        pq.write_table(arrays(numbered(rows)), tmp_path / f"{name}.parquet")
    for name in (".hidden", "_common"):
        (tmp_path / f"{name}.parquet").write_bytes(b"not data")
    data = load("parquet", path=str(tmp_path))
    assert numbers(data.train) == list(range(40))
    assert numbers(data.heldout) == list(range(40, 50))
    data = load("parquet", path=str(tmp_path), heldout=5)
    assert sorted(numbers(both(data))) == list(range(40))
    other = load("parquet", path=str(tmp_path / "train-0.parquet"), heldout=str(tmp_path / f"{word}-0.parquet"))
    assert (numbers(other.train), numbers(other.heldout)) == (list(range(20)), list(range(40, 50)))
    within = load("parquet", path=str(tmp_path), heldout=str(tmp_path / "train-1.parquet"))
    assert (numbers(within.train), numbers(within.heldout)) == (
        list(range(20)),
        list(range(20, 40)),
    )  # in one half only
    alone = load("parquet", path=str(tmp_path / f"{word}-0.parquet"))
    assert sorted(numbers(both(alone))) == list(range(40, 50))


def test_the_fingerprint_is_of_the_content(tmp_path, numbered, arrays):
    images = numbered(range(20))
    other = images.copy()
    other[7, 0, 5, 5] ^= 1
    for name, content, size in (("a", images, 20), ("b", images, 3), ("c", other, 20)):
        pq.write_table(arrays(content), tmp_path / f"{name}.parquet", row_group_size=size)
    prints = [load("parquet", path=str(tmp_path / f"{name}.parquet")).fingerprint for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_file_systems_of_pyarrow(many, monkeypatch):
    """A file:// URI, and one whose file system is not the local one: a tree that starts elsewhere."""
    here = load("parquet", path=str(many))
    assert load("parquet", path=many.as_uri()).fingerprint == here.fingerprint
    tree = fs.SubTreeFileSystem(str(many.parent), fs.LocalFileSystem())
    patched = SimpleNamespace(**vars(fs))
    patched.FileSystem = SimpleNamespace(from_uri=lambda uri: (tree, uri.removeprefix("s3://")))
    monkeypatch.setattr(shards, "fs", patched)
    assert load("parquet", path=f"s3://{many.name}").fingerprint == here.fingerprint
    streamed = load("parquet", path=f"s3://{many.name}", memory_mb=1, heldout=100)
    assert sum(len(samples) for samples, _ in streamed.stream.epoch(0)) == 600
    with pytest.raises(UserError, match="'s3://nowhere' does not exist"):
        load("parquet", path="s3://nowhere")


def test_storage_that_fails_is_not_the_user_s_fault(monkeypatch):
    def from_uri(uri):
        if uri == "s3://offline":
            raise OSError("no answer\nfrom there")
        raise pa.ArrowInvalid("no such kind of URI")

    patched = SimpleNamespace(**vars(fs))
    patched.FileSystem = SimpleNamespace(from_uri=from_uri)
    monkeypatch.setattr(shards, "fs", patched)
    with pytest.raises(SaddleError) as caught:
        load("parquet", path="s3://offline")
    assert str(caught.value) == "data.path: 's3://offline' cannot be reached: no answer from there"
    assert caught.value.exit_code == 1
    with pytest.raises(UserError, match="cannot be opened"):
        load("parquet", path="x://y")

"""What `saddle data import` writes: read back bit for bit, whole or not at all."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from saddlepoint.data import load
from saddlepoint.errors import SaddleError
from saddlepoint.workflows.data_import import import_data

OWN = """
import numpy as np
import torch
from saddlepoint.data import Dataset

def levels():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8))
    return Dataset.build("levels", "image", *(images / 127.5 - 1).split(30))

def labelled(shift: int = 0):
    labels = [(torch.arange(n) + shift) % 3 for n in (6, 4)]
    images = torch.zeros(10, 1, 8, 8).split([6, 4])
    return Dataset.build("same", "image", *images, train_labels=labels[0], heldout_labels=labels[1], classes=3)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_levels.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def folder(tmp_path):
    """40 images of various sizes with the labels cat and dog."""
    rng = np.random.default_rng(0)
    for index in range(40):
        (tmp_path / "pets" / ("cat", "dog")[index % 2]).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10 + index % 3, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pets" / ("cat", "dog")[index % 2] / f"{index}.png")
    return tmp_path / "pets"


def same(first, second):
    """Bit for bit, and in the same order."""
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.heldout, second.heldout)
    assert (first.train_labels is None) == (second.train_labels is None)
    if first.train_labels is not None:
        assert torch.equal(first.train_labels, second.train_labels)
        assert torch.equal(first.heldout_labels, second.heldout_labels)
    assert first.fingerprint == second.fingerprint
    assert (first.name, first.kind, first.classes) == (second.name, second.kind, second.classes)


def type_of(folder, column="image"):
    return str(pq.read_schema(next(folder.glob("train-*"))).field(column).type)


@pytest.mark.parametrize(
    ("name", "options", "column", "type_"),
    [
        ("digits", {}, "image", "float"),  # sixteenths: no 8-bit levels
        ("digits", {"binary": True}, "image", "uint8"),
        ("ring", {"train": 3000, "heldout": 500}, "sample", "float"),
        ("own_levels:levels", {}, "image", "uint8"),
    ],
)
def test_a_set_comes_back_bit_for_bit(tmp_path, name, options, column, type_):
    import_data(name, options, tmp_path / "out")
    data, back = load(name, **options), load("parquet", path=str(tmp_path / "out"))
    same(data, back)
    assert f"element: {type_} not null" in type_of(tmp_path / "out", column)
    if data.mixture is not None:
        assert torch.equal(back.mixture.means, data.mixture.means)
        assert back.mixture.std == data.mixture.std


@pytest.mark.parametrize("format", ["array", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images_comes_back_bit_for_bit(tmp_path, folder, format, channels):
    import_data(str(folder), {"size": 8, "channels": channels}, tmp_path / "out", format)
    same(load("image_folder", path=str(folder), size=8, channels=channels), load("parquet", path=str(tmp_path / "out")))
    assert (type_of(tmp_path / "out") == "binary") == (format == "png")
    metadata = pq.read_metadata(next((tmp_path / "out").glob("train-*"))).metadata
    assert json.loads(metadata[b"classes"]) == ["cat", "dog"]
    assert metadata[b"shape"] == f"{channels},8,8".encode()
    assert metadata[b"name"] == b"pets"
    assert re.fullmatch(rb"[0-9a-f]{64}", metadata[b"fingerprint"])


def test_a_folder_is_read_file_by_file(tmp_path, folder, monkeypatch):
    """Never more than a row group of images is in memory."""
    from saddlepoint.data.images import ImageFiles
    from saddlepoint.data.parquet import writer

    read, sizes = ImageFiles.read, []

    def noted(self, start, stop):
        sizes.append(stop - start)
        return read(self, start, stop)

    monkeypatch.setattr(ImageFiles, "read", noted)
    monkeypatch.setattr(ImageFiles, "load", None)
    monkeypatch.setattr(writer, "GROUP_BYTES", 7 * 3 * 8 * 8)
    import_data("image_folder", {"path": str(folder), "size": 8}, tmp_path / "out")
    assert sizes == [7, 7, 6, 7, 7, 6]


def test_shards_and_row_groups(tmp_path):
    calls = []
    options = {"train": 2500, "heldout": 10}
    result = import_data("ring", options, tmp_path / "out", rows_per_shard=1500, progress=lambda *at: calls.append(at))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ["heldout-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"]
    assert files == [f"{name}.parquet" for name in names]
    metadata = pq.read_metadata(tmp_path / "out" / "train-00000-of-00002.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [1024, 476]
    assert calls == [(1024, 2510), (1500, 2510), (2500, 2510), (2510, 2510)]
    assert (result.folder, result.rows, result.files) == (tmp_path / "out", {"train": 2500, "heldout": 10}, 3)
    assert result.bytes == sum(file.stat().st_size for file in result.folder.iterdir())


def test_two_domains_are_two_folders(tmp_path):
    result = import_data("digits_pairs", {}, tmp_path / "out")
    assert result.rows == {"A/train": 449, "A/heldout": 899, "B/train": 449, "B/heldout": 899}
    x, y = ({"name": "parquet", "path": str(tmp_path / "out" / side)} for side in "AB")
    data, back = load("digits_pairs"), load("unpaired", x=x, y=y, paired=True)
    assert back.fingerprint == data.fingerprint
    assert torch.equal(back.target.train, data.target.train)


def test_folders_of_two_domains(tmp_path):
    for index, name in enumerate(("trainA", "trainB", "testA", "testB")):
        (tmp_path / "horses" / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("L", (9, 9), 80 * index + shade).save(tmp_path / "horses" / name / f"{shade}.png")
    import_data(str(tmp_path / "horses"), {"size": 8, "channels": 1}, tmp_path / "out", "png")
    data = load("unpaired_folder", path=str(tmp_path / "horses"), size=8, channels=1)
    x, y = ({"name": "parquet", "path": str(tmp_path / "out" / side)} for side in "AB")
    assert load("unpaired", x=x, y=y).fingerprint == data.fingerprint


def test_a_streamed_set_is_written_whole(tmp_path, many, numbers):
    """Larger than its memory: to other shards, without ever being loaded."""
    options = {"path": str(many), "memory_mb": 1, "heldout": 100}
    assert load("parquet", **options).stream is not None
    import_data("parquet", options, tmp_path / "out", "png", rows_per_shard=256)
    data, back = load("parquet", path=str(many), heldout=100), load("parquet", path=str(tmp_path / "out"))
    assert torch.equal(back.heldout, data.heldout)
    assert sorted(numbers(back.train)) == sorted(numbers(data.train))
    assert [number % 7 for number in numbers(back.train)] == back.train_labels.tolist()
    rows = {number: image for number, image in zip(numbers(data.train), data.train, strict=True)}
    assert all(torch.equal(image, rows[number]) for number, image in zip(numbers(back.train), back.train, strict=True))


def test_the_same_content_is_left_as_it_is(tmp_path):
    first = import_data("digits", {}, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert import_data("digits", {}, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_there_is_never_overwritten(tmp_path, refusal):
    out = tmp_path / "out"
    import_data("digits", {}, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for options, rows in (({"seed": 1}, 25_000), ({"binary": True}, 25_000), ({}, 100)):
        line = refusal(lambda: import_data("digits", options, out, rows_per_shard=rows))  # noqa: B023
        assert line == f"--out: '{out}' holds another data set, or one that was written otherwise"
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    import_data("own_levels:labelled", {}, tmp_path / "labelled")
    line = refusal(lambda: import_data("own_levels:labelled", {"shift": 1}, tmp_path / "labelled"))
    assert line.endswith("holds another data set, or one that was written otherwise")
    (out / "notes.txt").write_text("mine")
    assert refusal(lambda: import_data("digits", {}, out)) == (
        f"--out: '{out}' holds 'notes.txt', which no import wrote; choose a new folder"
    )
    assert "is a file" in refusal(lambda: import_data("digits", {}, out / "notes.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labelled", "out", "own_levels.py"]


def test_nothing_is_left_of_an_import_that_fails(tmp_path, folder, refusal):
    (folder / "dog" / "1.png").write_bytes(b"no image")
    line = refusal(lambda: import_data("image_folder", {"path": str(folder)}, tmp_path / "sets" / "out"))
    assert "1.png' cannot be read" in line
    assert list((tmp_path / "sets").iterdir()) == []

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_data("digits", {}, tmp_path / "sets" / "out", progress=stop)
    assert list((tmp_path / "sets").iterdir()) == []


def test_the_folder_appears_whole_in_one_step(tmp_path, monkeypatch):
    """All is written under another name, and only then renamed."""
    seen = []

    def fails(source, target):
        seen.extend(sorted(path.name for path in Path(source).iterdir()))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saddlepoint.workflows.data_import.os.replace", fails)
    with pytest.raises(SaddleError, match="cannot be written: No space left on device") as caught:
        import_data("digits", {}, tmp_path / "sets" / "out")
    assert caught.value.exit_code == 1
    assert len(seen) == 2
    assert list((tmp_path / "sets").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaddleError, match="cannot be written: ") as caught:
        import_data("digits", {}, tmp_path / "file" / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "more", "says"),
    [
        ("digit", {}, {}, "data.name: 'digit' is not known; did you mean 'digits'?"),
        ("digits", {"sed": 1}, {}, "data.sed: 'sed' is not known; did you mean 'seed'?"),
        ("image_folder", {}, {}, "data.path: missing; image_folder needs it"),
        ("image_folder", {"path": "nowhere"}, {}, "data.path: 'nowhere' is not a folder"),
        ("image_folder", {"path": "pets", "size": 0}, {}, "data.size: 0 cannot be"),
        ("digits", {}, {"format": "png"}, "--format: 'png' is for 8-bit images, and those of 'digits' are none"),
        ("ring", {}, {"format": "png"}, "--format: 'png' is for 8-bit images"),
        ("digits", {}, {"format": "jpeg"}, "--format: 'jpeg' is not known; known: array, png"),
        ("digits", {}, {"rows_per_shard": 0}, "--rows-per-shard: 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_imported(tmp_path, folder, refusal, source, options, more, says):
    assert refusal(lambda: import_data(source, options, tmp_path / "out", **more)).startswith(says)
    assert not (tmp_path / "out").exists()

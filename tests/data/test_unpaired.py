"""Two domains: joined, from folders, from the digits, and from any two sets by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from saddlepoint.data import Dataset, join, load
from saddlepoint.errors import UserError


def images(n, channels=3, size=4, seed=0, name="x"):
    pixels = torch.rand(2, n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Dataset.build(name, "image", *pixels)


def test_joined_domains_keep_what_each_has():
    x, y = images(5), images(7, seed=1, name="y")
    data = join("both", x, y)
    assert (data.name, data.paired) == ("both", False)
    assert data.train is x.train
    assert data.target is y
    moved = data.to("meta")
    assert moved.target.train.device.type == moved.train.device.type == "meta"
    assert moved.fingerprint == data.fingerprint


def test_the_fingerprint_is_over_both_domains():
    x, y, z = images(5), images(5, seed=1), images(5, seed=2)
    pairs = [join("a", x, y), join("b", x, y), join("a", y, x), join("a", x, z), join("a", x, y, paired=True)]
    assert pairs[0].fingerprint == pairs[1].fingerprint
    assert len({pair.fingerprint for pair in pairs} | {x.fingerprint}) == 5


@pytest.mark.parametrize(
    ("y", "options", "says"),
    [
        (images(5, channels=1, name="y"), {}, "'x' and 'y' differ in the channels of their images: 3 and 1"),
        (images(5, size=8, name="y"), {}, "differ in the shape of a sample: (3, 4, 4) and (3, 8, 8)"),
        (images(6, name="y"), {"paired": True}, "differ in the length of their held-out halves, which are"),
        (Dataset.build("y", "points", torch.zeros(5, 2), torch.ones(5, 2)), {}, "in their kind: image and points"),
        (join("y", images(5), images(5)), {}, "each domain must be one data set, not two"),
    ],
)  # fmt: skip
def test_domains_that_do_not_fit(refusal, y, options, says):
    line = refusal(lambda: join("both", images(5), y, **options))
    assert line.startswith("data.name: 'both': ")
    assert says in line


COLOURS = {"trainA": (255, 0, 0), "trainB": (0, 255, 0), "testA": (0, 0, 255), "testB": (255, 255, 255)}


@pytest.fixture
def horses(tmp_path):
    """The layout of horse2zebra: each folder of one colour, with 2, 3, 4 and 5 images of various sizes."""
    for count, (name, colour) in enumerate(COLOURS.items(), start=2):
        (tmp_path / "horses" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20 + index, 16), colour).save(tmp_path / "horses" / name / f"{index}.jpg", quality=100)
    return tmp_path / "horses"


def test_folders_of_two_domains(horses):
    data = load("unpaired_folder", path=str(horses), size=8)
    assert (data.name, data.paired, data.train_labels) == ("horses", False, None)
    halves = {"trainA": data.train, "trainB": data.target.train, "testA": data.heldout, "testB": data.target.heldout}
    for count, (name, colour) in enumerate(COLOURS.items(), start=2):
        assert halves[name].shape == (count, 3, 8, 8)
        wanted = torch.tensor(colour)[:, None, None] / 127.5 - 1
        assert float((halves[name] - wanted).abs().max()) < 0.03  # JPEG
    assert load("unpaired_folder", path=str(horses), size=4, channels=1).sample_shape == (1, 4, 4)


@pytest.mark.parametrize("name", COLOURS)
def test_a_side_that_is_missing_or_empty_is_named(horses, refusal, name):
    for file in (horses / name).iterdir():
        file.rename(file.with_suffix(".txt"))
    line = refusal(lambda: load("unpaired_folder", path=str(horses)))
    assert line.startswith(f"data.path: '{horses / name}' holds no image (")
    for file in (horses / name).iterdir():
        file.unlink()
    (horses / name).rmdir()
    line = refusal(lambda: load("unpaired_folder", path=str(horses)))
    assert line == f"data.path: '{horses / name}' is not a folder; trainA, trainB, testA and testB are needed"


def rotated(images):
    """By 90 degrees to the left: what was the last column is the first row."""
    return images.transpose(2, 3).flip(2)


@pytest.mark.parametrize(("task", "transform"), [("invert", lambda x: -x), ("rotate", rotated)])
def test_digits_pairs(task, transform):
    data, digits = load("digits_pairs", task=task), load("digits")
    x, y = data, data.target
    assert data.paired
    assert len(x.train) == len(y.train) == 449
    assert torch.equal(x.heldout, digits.heldout)
    assert torch.equal(y.heldout, transform(x.heldout))
    assert torch.equal(x.heldout_labels, y.heldout_labels)
    back = transform(transform(transform(y.train)))  # both tasks are undone by three more of them
    parts = {
        (tuple(image.flatten().tolist()), int(label)) for image, label in zip(x.train, x.train_labels, strict=True)
    }
    others = {(tuple(image.flatten().tolist()), int(label)) for image, label in zip(back, y.train_labels, strict=True)}
    whole = {
        (tuple(image.flatten().tolist()), int(label))
        for image, label in zip(digits.train, digits.train_labels, strict=True)
    }
    assert not parts & others
    assert parts | others == whole
    assert int((x.train_labels.bincount() - y.train_labels.bincount()).abs().max()) <= 1


def test_digits_pairs_are_fixed_by_the_seed():
    assert load("digits_pairs").fingerprint == load("digits_pairs", task="invert", seed=0).fingerprint
    prints = {load("digits_pairs", **options).fingerprint for options in ({}, {"task": "rotate"}, {"seed": 1})}
    assert len(prints) == 3
    with pytest.raises(UserError, match=r"data.task: 'inverted' is not known; did you mean 'invert'\?"):
        load("digits_pairs", task="inverted")


def test_the_identity_is_as_far_from_inverted_digits_as_was_measured():
    data = load("digits_pairs")
    assert float((data.heldout - data.target.heldout).abs().mean()) == pytest.approx(1.581, abs=0.005)
    mean = data.target.train.mean(dim=0)
    assert float((mean - data.target.heldout).abs().mean()) == pytest.approx(0.387, abs=0.005)


def test_any_two_sets_by_name(tmp_path, numbered, arrays):
    for name, rows in (("a", range(20)), ("b", range(20, 50))):
        pq.write_table(arrays(numbered(rows)), tmp_path / f"{name}.parquet")
    x, y = ({"name": "parquet", "path": str(tmp_path / f"{name}.parquet")} for name in "ab")
    data = load("unpaired", x=x, y=y)
    assert (len(data.train), len(data.target.train), data.paired) == (10, 15, False)
    assert data.fingerprint == join("any", *(load("parquet", path=side["path"]) for side in (x, y))).fingerprint
    assert load("unpaired", x={"name": "digits"}, y={"name": "digits", "binary": True}, paired=True).paired


def test_domains_may_be_streams(many):
    data = load(
        "unpaired",
        x={"name": "parquet", "path": str(many), "memory_mb": 1, "heldout": 100},
        y={"name": "parquet", "path": str(many), "memory_mb": 1, "heldout": 100, "seed": 1},
    )
    assert data.stream is not None
    assert data.target.stream is not None


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ("digits", "data.x: 'digits' cannot be; it must be a data set's name and options"),
        ({"path": "/"}, "data.x: {'path': '/'} cannot be"),
        ({"name": "digit"}, "data.x.name: 'digit' is not known; did you mean 'digits'?"),
        ({"name": "digits", "sed": 1}, "data.x.sed: 'sed' is not known; did you mean 'seed'?"),
        ({"name": "parquet", "path": "/no/where"}, "data.x.path: '/no/where' does not exist"),
        ({"name": "digits_pairs"}, "data.name: 'unpaired': each domain must be one data set, not two"),
        ({"name": "ring"}, "data.name: 'unpaired': the domains 'ring' and 'digits' differ in their kind"),
    ],
)
def test_domains_that_cannot_be(refusal, x, says):
    assert refusal(lambda: load("unpaired", x=x, y={"name": "digits"})).startswith(says)


def test_png_columns_as_domains(tmp_path, encoded):
    for name, channels in (("a", 3), ("b", 1)):
        levels = np.zeros((4, channels, 8, 8), dtype=np.uint8)
        pq.write_table(pa.table({"image": encoded(levels)}), tmp_path / f"{name}.parquet")
    x, y = ({"name": "parquet", "path": str(tmp_path / f"{name}.parquet")} for name in "ab")
    with pytest.raises(UserError, match="differ in the channels of their images: 3 and 1"):
        load("unpaired", x=x, y=y)
    assert load("unpaired", x=x, y=y | {"channels": 3}).target.sample_shape == (3, 8, 8)

"""What is wrong with a Parquet set is one line that names the key, the file and the row, and what would be right."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from saddlepoint.data import load

LABELS = pa.array(np.arange(20) % 3)


@pytest.fixture
def said(tmp_path, refusal):
    """`said(table, **options)`: what is said of a file with this content."""

    def of(table: pa.Table, **options) -> str:
        pq.write_table(table, tmp_path / "x.parquet", row_group_size=6)
        return refusal(lambda: load("parquet", path=str(tmp_path / "x.parquet"), **options)).replace(f"{tmp_path}/", "")

    return of


def lists(values, type_=None, facts=None):
    """Rows of the shape (1, 2, 2)."""
    table = pa.table({"image": pa.array(values, type_ or pa.list_(pa.uint8()))})
    return table.replace_schema_metadata({"shape": "1,2,2"} if facts is None else facts)


def test_nothing_there(tmp_path, refusal):
    assert refusal(lambda: load("parquet", path=f"{tmp_path}/no")) == f"data.path: '{tmp_path}/no' does not exist"
    assert refusal(lambda: load("parquet", path=str(tmp_path))).endswith("holds no .parquet file")
    assert "cannot be opened" in refusal(lambda: load("parquet", path="foo://bar"))


def test_files_that_are_not_whole(tmp_path, many, refusal):
    file = tmp_path / "x.parquet"
    whole = (many / "part-0.parquet").read_bytes()
    for content in (b"", b"not Parquet" * 100, whole[:-1], whole[: len(whole) // 2]):
        file.write_bytes(content)
        line = refusal(lambda: load("parquet", path=str(file)))
        assert line.startswith(f"data.path: '{file}' is no Parquet file, or is cut short: ")
    file.write_bytes(whole)
    assert refusal(
        lambda: load("parquet", path=str(file), heldout=str(tmp_path / "y.parquet"))
    ).startswith("data.heldout: ")  # fmt: skip


def test_damage_is_found_while_it_is_read(tmp_path, numbered, arrays, refusal):
    """At once if the set is loaded whole, in the middle of the training if it is streamed."""
    file = tmp_path / "x.parquet"
    pq.write_table(arrays(numbered(range(700))), file, row_group_size=50, write_page_checksum=True)
    streamed = load("parquet", path=str(file), heldout=100, memory_mb=1)
    content = bytearray(file.read_bytes())
    content[pq.read_metadata(file).row_group(7).column(0).data_page_offset + 5000] ^= 255
    file.write_bytes(content)
    line = refusal(lambda: load("parquet", path=str(file)))
    assert line.startswith(f"data.path: '{file}' is damaged: ")
    given = []
    for seed in range(6):
        assert refusal(lambda seed=seed: given.extend(streamed.stream.epoch(seed))) == line
    assert given  # in some orders the block that is damaged is not the first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "picture"}, "data.image: 'x.parquet' has no column 'picture'; its columns: 'pixels', 'label'"),
        ({}, "data.image: 'x.parquet' has no column 'image'; its columns: 'pixels', 'label'"),
        (
            {"image": "pixels", "label": "kind"},
            "data.label: 'x.parquet' has no column 'kind'; its columns: 'pixels', 'label'",
        ),
        ({"image": "label"}, "data.image: the column 'label' is of type int64; it must hold encoded images (binary), "),
        ({"image": "pixels", "size": 8}, "data.size: 8; it is for encoded images, and 'pixels' holds arrays"),
        ({"image": "pixels", "channels": 1}, "data.channels: 1; it is for encoded images, and 'pixels' holds arrays"),
        ({"image": "pixels", "heldout": 20}, "data.heldout: 20 cannot be; it must be from 1 to 19 of the 20 rows"),
        ({"image": "pixels", "heldout": 0}, "data.heldout: 0 cannot be"),
        ({"image": "pixels", "heldout": 1.0}, "data.heldout: 1.0 cannot be; it must be a number of rows, a fraction"),
        ({"image": "pixels", "memory_mb": 0}, "data.memory_mb: 0 cannot be"),
        ({"image": "pixels", "seed": -1}, "data.seed: -1 cannot be"),
        ({"image": "pixels", "size": 0}, "data.size: 0 cannot be"),
        ({"image": "pixels", "channels": 2}, "data.channels: 2 cannot be; it must be 1 or 3"),
    ],
)
def test_columns_and_options(said, numbered, arrays, options, says):
    assert said(arrays(numbered(range(20)), "pixels", label=LABELS), **options).startswith(says)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (lists([[1.0]], pa.list_(pa.float64())), "data.image: the column 'image' is of type list<"),
        (lists([[1, 2, 3, 4]] * 20, facts={}), "data.image: the file of the column 'image' lacks the metadata shape"),
        (lists([[1]] * 20, pa.list_(pa.uint8(), 1), {}), "data.image: the column 'image' holds uint8, so images;"),
        (lists([[1]] * 20, facts={"shape": "2,2"}), "data.image: the metadata shape '2,2' must be C,H,W"),
        (lists([[1]] * 20, facts={"shape": "1,2,x"}), "data.image: the metadata shape '1,2,x' must be C,H,W"),
        (lists([[1] * 3] * 20, pa.list_(pa.uint8(), 3)), "data.image: the metadata shape '1,2,2' does not fit"),
        (lists([[1] * 4] * 9 + [[1] * 5] * 9), "data.image: row 9 of 'x.parquet' holds 5 numbers; others hold 4"),
        (lists([[1] * 4] * 9 + [None] * 9), "data.image: row 9 of 'x.parquet' has no image"),
        (lists([[1] * 4] * 9 + [[1, None, 1, 1]] * 9), "data.image: row 9 of 'x.parquet' lacks a number"),
        (
            lists([[1.0] * 4] * 9 + [[1.0, 1.5, 0.0, 0.0]], pa.list_(pa.float32())),
            "data.image: row 9 of 'x.parquet' holds numbers that are not within [-1, 1]",
        ),
        (
            lists([[1.0] * 4] * 9 + [[1.0, np.nan, 0.0, 0.0]], pa.list_(pa.float32())),
            "data.image: row 9 of 'x.parquet' holds numbers that are not within [-1, 1]",
        ),
        (
            lists([[7.0] * 4] * 9 + [[1.0, np.inf, 0.0, 0.0]], pa.list_(pa.float32(), 4), {}),
            "data.image: row 9 of 'x.parquet' holds numbers that are not finite",
        ),
        (lists([[1] * 4][:0]), "data.path: 'x.parquet' holds no rows"),
        (lists([[1] * 4]), "data.path: one row; training and held-out half need one each"),
    ],
)  # fmt: skip
def test_arrays(said, table, says):
    assert said(table).startswith(says)


def test_encoded_images(said, encoded, numbered):
    colour, grey, small = (numbered(range(9), shape) for shape in ((3, 8, 8), (1, 8, 8), (3, 4, 4)))

    def of(*contents):
        return pa.table({"image": [content for part in contents for content in part]})

    assert said(of(encoded(colour), encoded(grey))) == (
        "data.image: row 9 of 'x.parquet' is an image of 8x8 with 1 channel, others are of 8x8 with 3 channels; "
        "give size and channels, and all are made equal"
    )
    assert "row 9 of 'x.parquet' is an image of 4x4 with 3 channels" in said(of(encoded(colour), encoded(small)))
    assert said(of(encoded(colour), [b"no image"])).startswith(
        "data.path: image in row 9 of 'x.parquet' cannot be read: UnidentifiedImageError"
    )
    assert said(of([b""], encoded(colour))).startswith("data.path: image in row 0 of 'x.parquet' cannot be read")
    assert said(of(encoded(colour), [None])) == "data.image: row 9 of 'x.parquet' has no image"
    structs = [{"bytes": content, "path": "x"} for content in encoded(colour)] + [{"bytes": None, "path": "x.png"}]
    assert said(pa.table({"image": structs})) == "data.image: row 9 of 'x.parquet' has no image"


@pytest.mark.parametrize(
    ("labels", "facts", "says"),
    [
        ([0, 1, None, None] * 5, {}, "data.label: 10 of 20 rows have none, first row 2 of 'x.parquet'; or set label"),
        ([0, 1, 2, -1] * 5, {}, "data.label: row 3 of 'x.parquet' has the label -1; it must lie from 0 up"),
        ([0, 1, 2, 3] * 5, {"classes": json.dumps(["a", "b", "c"])}, "data.label: row 3 of 'x.parquet' has the label"),
        ([0, 1, 2, 20] * 5, {}, "data.label: 20 in 20 rows is hardly the number of a class"),
        (["a"] * 20, {}, "data.label: the column 'label' is of type string; it must hold integers"),
        ([0.5] * 20, {}, "data.label: the column 'label' is of type double; it must hold integers"),
    ],
)  # fmt: skip
def test_labels(said, numbered, arrays, labels, facts, says):
    assert said(arrays(numbered(range(20)), facts=facts, label=pa.array(labels))).startswith(says)


def test_files_that_do_not_fit_together(tmp_path, numbered, arrays, refusal):
    def both(first, second, **options):
        for name, table in (("a", first), ("b", second)):
            pq.write_table(table, tmp_path / f"{name}.parquet")
        return refusal(lambda: load("parquet", path=str(tmp_path), **options)).replace(f"{tmp_path}/", "")

    images = numbered(range(20))
    table = arrays(images, label=LABELS)
    assert both(table, arrays(images)) == "data.label: 'b.parquet' has no column 'label'; its columns: 'image'"
    assert both(table, arrays(images[:, :, :8], label=LABELS)) == (
        "data.image: 'image' is fixed_size_list<element: uint8>[768] in 'a.parquet', "
        "but fixed_size_list<element: uint8>[384] in 'b.parquet'"
    )
    turned = arrays(images.reshape(20, 3, 8, 32), label=LABELS)
    assert both(table, turned) == "data.path: the metadata 'shape' of 'a.parquet' and 'b.parquet' differ"
    assert refusal(
        lambda: load("parquet", path=f"{tmp_path}/a.parquet", heldout=f"{tmp_path}/b.parquet")
    ) == "data.heldout: its samples are (3, 8, 32), and those of the training half (3, 16, 16)"  # fmt: skip


def test_held_out_files_that_are_all_there_is(many, refusal):
    assert refusal(lambda: load("parquet", path=str(many), heldout=str(many))) == (
        f"data.heldout: '{many}' is all that there is; nothing is left for training"
    )


def test_a_held_out_half_that_the_memory_does_not_hold(many, refusal):
    assert refusal(lambda: load("parquet", path=str(many), heldout=300, memory_mb=1)) == (
        "data.memory_mb: 1; the held-out half, 300 samples, is kept in memory and may take half of it: "
        "give at least 2, or a smaller heldout"
    )

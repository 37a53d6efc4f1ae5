"""Images written with known pixels, read back as a data set."""

import numpy as np
import pytest
import torch
from PIL import Image

from saddlepoint.data import load
from saddlepoint.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(file, **options)


def plain(colour, height=8, width=8):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def colours(data):
    """The colour of each image, train first; asserts that an image is of one colour."""
    images = torch.cat([data.train, data.heldout])
    assert torch.equal(images, images[:, :, :1, :1].expand_as(images))
    return sorted(tuple(round(value) for value in image) for image in ((images[:, :, 0, 0] + 1) * 127.5).tolist())


def test_wide_and_high_images_are_cropped_around_their_centre(tmp_path):
    wide = np.concatenate([plain(RED, 20, 10), plain(GREEN, 20, 20), plain(BLUE, 20, 10)], axis=1)
    save(tmp_path / "wide.png", wide)
    save(tmp_path / "high.png", wide.transpose(1, 0, 2))
    data = load("image_folder", path=str(tmp_path), size=20)
    assert data.train.shape == data.heldout.shape == (1, 3, 20, 20)
    assert colours(data) == [GREEN, GREEN]
    assert data.train.aminmax() == (-1, 1)


def test_the_shorter_side_is_resized(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png", np.concatenate([plain(RED, 64, 64), plain(BLUE, 64, 64)], axis=1))
    data = load("image_folder", path=str(tmp_path), size=16)
    left, right = data.train[0, :, :, 1], data.train[0, :, :, -2]  # the crop is 64x64 around the border
    assert torch.equal(left, torch.tensor([1.0, -1, -1])[:, None].expand(3, 16))
    assert torch.equal(right, torch.tensor([-1.0, -1, 1])[:, None].expand(3, 16))


def test_one_channel_is_grey(tmp_path):
    save(tmp_path / "a.png", plain(GREEN))
    save(tmp_path / "b.png", plain((255, 255, 255)))
    data = load("image_folder", path=str(tmp_path), size=4, channels=1)
    assert data.sample_shape == (1, 4, 4)
    assert colours(data) == [(150,), (255,)]  # luma of green: 0.587 * 255


def test_sub_folders_are_labels_in_the_order_of_their_names(tmp_path):
    for colour, folder in ((RED, "b"), (BLUE, "a")):
        for index in range(6):
            save(tmp_path / folder / f"deep{index % 2}" / f"{index}.png", plain(colour))
    data = load("image_folder", path=str(tmp_path), size=2)
    assert data.classes == 2
    for images, labels in ((data.train, data.train_labels), (data.heldout, data.heldout_labels)):
        assert labels.bincount().tolist() == [3, 3]
        assert torch.equal(labels == 1, images[:, 0, 0, 0] == 1)  # b is red
    save(tmp_path / "loose.png", plain(GREEN))
    assert load("image_folder", path=str(tmp_path), size=2).classes is None


def test_one_sub_folder_is_no_label(tmp_path):
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", plain(RED))
    assert load("image_folder", path=str(tmp_path)).train_labels is None


def test_hidden_and_other_files_do_not_count(tmp_path):
    for name in ("a.png", "b.PNG", ".c.png", ".cache/d.png"):
        save(tmp_path / name, plain(RED))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    data = load("image_folder", path=str(tmp_path))
    assert len(data.train) + len(data.heldout) == 2


def test_formats_and_modes(tmp_path):
    transparent = np.zeros((8, 8, 4), dtype=np.uint8)  # black, but nothing of it shows
    save(tmp_path / "transparent.png", transparent)
    save(tmp_path / "deep.png", np.full((8, 8), 257 * 100, dtype=np.uint16))
    (tmp_path / "deep.pgm").write_bytes(b"P5 8 8 65535\n" + (257 * 50).to_bytes(2, "big") * 64)
    Image.fromarray(plain(GREEN)).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(np.full((8, 8), 200, dtype=np.uint8)).save(tmp_path / "grey.bmp")
    data = load("image_folder", path=str(tmp_path), size=8)
    assert colours(data) == [GREEN, (50, 50, 50), (100, 100, 100), (200, 200, 200), (255, 255, 255)]


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    pixels = np.concatenate([plain(RED, 8, 16), plain(BLUE, 8, 16)])  # red above blue: turned, red is right
    for name in "ab":
        save(tmp_path / f"{name}.png", pixels, exif=exif)
    image = load("image_folder", path=str(tmp_path), size=16).train[0]
    assert torch.equal(image[:, 8, -1], torch.tensor([1.0, -1, -1]))
    assert torch.equal(image[:, 8, 0], torch.tensor([-1.0, -1, 1]))


def test_the_split_is_fixed_by_the_seed(tmp_path):
    for index in range(20):
        save(tmp_path / f"{index}.png", plain((index, 0, 0)))
    first = load("image_folder", path=str(tmp_path))
    assert load("image_folder", path=str(tmp_path)).fingerprint == first.fingerprint
    assert load("image_folder", path=str(tmp_path), seed=1).fingerprint != first.fingerprint
    assert colours(first) == [(index, 0, 0) for index in range(20)]


def test_a_corrupt_image_is_named(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = (tmp_path / "b.png").read_bytes()
    for content in (b"", b"not an image", whole[: len(whole) // 2]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(UserError) as caught:
            load("image_folder", path=str(tmp_path))
        assert str(caught.value).startswith(f"data.path: image '{tmp_path / 'b.png'}' cannot be read: ")
        assert "\n" not in str(caught.value)


def test_folders_that_hold_too_little(tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        load("image_folder", path=str(tmp_path))
    save(tmp_path / "a.png", plain(RED))
    with pytest.raises(UserError, match=r"holds one image, 'a.png'; at least 2"):
        load("image_folder", path=str(tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        load("image_folder", path=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is not a folder"):
        load("image_folder", path=str(tmp_path / "a.png"))


@pytest.mark.parametrize("option", [{"size": 0}, {"channels": 2}, {"seed": -1}])
def test_options_that_cannot_be(tmp_path, option):
    for name in "ab":
        save(tmp_path / f"{name}.png", plain(RED))
    with pytest.raises(UserError, match=f"^data.{next(iter(option))}: "):
        load("image_folder", path=str(tmp_path), **option)

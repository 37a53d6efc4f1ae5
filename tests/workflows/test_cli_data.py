"""Data that cannot be, as a user meets it at the command line; and the commands that move data and images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from saddlepoint import data
from saddlepoint.generator import load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train

Saddle = Callable[..., int]
Small = Callable[..., Pipeline]

GAN = """
name: own
data: {data}
game: {{name: {game}}}
networks: {{{networks}}}
training: {{rounds: 4, batch_size: 2, evaluate_every: 2, device: cpu}}
objective: {{metric: kid, features: pixels, samples: 2}}
"""
MLP = "generator: {factory: mlp_generator}, discriminator: {factory: mlp_critic}"
CONDITIONAL = "generator: {factory: conditional_mlp_generator}, discriminator: {factory: conditional_mlp_critic}"
SMALL_G = "{factory: resnet_generator, width: 4, halvings: 0, blocks: 1, kernel: 3}"
SMALL_D = "{factory: patchgan_discriminator, widths: [4], strides: [2], head: 2}"
CYCLE = f"G: {SMALL_G}, F: {SMALL_G}, D_X: {SMALL_D}, D_Y: {SMALL_D}"
NARROW = "generator: {factory: mlp_generator}, discriminator: {factory: 'narrow:generator'}"


def image(path: Path, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(levels).convert(mode).save(path)


def table(path: Path, images: list[list[int]], **columns: list[int]) -> None:
    kinds = pa.array(images, pa.list_(pa.uint8(), 64))
    pq.write_table(pa.table({"image": kinds, **columns}).replace_schema_metadata({"shape": "1,8,8"}), path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data that is wrong in many ways."""
    here = tmp_path / "in"
    for number in range(4):
        image(here / "plain" / f"{number}.png", seed=number)
        for side in ("trainA", "testA", "testB"):
            image(here / "one side" / side / f"{number}.png", seed=number)
    (here / "one side" / "trainB").mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (40, 64)).tolist()
    table(here / "whole.parquet", rows, label=[n % 2 for n in range(40)])
    table(here / "colours.parquet", rows)
    whole = (here / "whole.parquet").read_bytes()
    (here / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    (here / "narrow.py").write_text(
        "from saddlepoint.networks.mlp import Generator\n\n"
        "def generator(sample_shape):\n    return Generator(7, sample_shape)\n"
    )
    monkeypatch.chdir(here)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SADDLE_CACHE", str(tmp_path / "cache"))
    return here


SIDES = "{name: unpaired, x: {name: digits}, y: {name: image_folder, path: plain, size: 8}}"
CASES = {
    "labels that are not there": (
        ("{name: image_folder, path: plain, size: 8}", "cgan", CONDITIONAL), "'cgan' needs labels", "has none"
    ),
    "one domain": (("{name: digits}", "cyclegan", CYCLE), "'cyclegan' translates between two domains", "digits_pairs"),
    "an empty side": (
        ("{name: unpaired_folder, path: one side, size: 8}", "cyclegan", CYCLE), "one side/trainB", "no image"
    ),
    "a side that is missing": (
        ("{name: unpaired_folder, path: plain, size: 8}", "cyclegan", CYCLE), "plain/trainA", "trainB, testA and testB"
    ),
    "grey on one side, colours on the other": ((SIDES, "cyclegan", CYCLE), "channels", "1 and 3"),
    "a z of another size": (
        ("{name: digits}", "gan", MLP.replace("mlp_generator", "'wide:generator'")), "networks.generator", "2x64"
    ),
    "a column that is not there": (
        ("{name: parquet, path: whole.parquet, image: pixels}", "gan", MLP), "'pixels'", "image"
    ),
    "a label column that is not there": (
        ("{name: parquet, path: whole.parquet, label: class}", "gan", MLP), "'class'", "label"
    ),
    "a file that was cut short": (("{name: parquet, path: torn.parquet}", "gan", MLP), "torn.parquet", "cut short"),
    "no such file": (("{name: parquet, path: nope.parquet}", "gan", MLP), "nope.parquet", ""),
    "an ELBO of grey levels": (
        ("{name: digits}", "vae", "encoder: {factory: gaussian_encoder}, decoder: {factory: bernoulli_decoder}"),
        "'elbo' needs images whose every pixel is -1 or 1", "binary: true"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_data_that_cannot_be_is_one_line_and_exit_code_2(
    case: str, saddle: Saddle, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (content, game, networks), names, right = CASES[case]
    text = GAN.format(data=content, game=game, networks=networks)
    if case == "an ELBO of grey levels":
        text = text.replace("metric: kid", "metric: elbo")
    (place / "wide.py").write_text((place / "narrow.py").read_text())
    (place / "own.yaml").write_text(text)
    before = sorted(place.rglob("*"))
    assert saddle("train", "own.yaml") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("saddle: ")
    assert said.err.count("\n") == 1
    assert names in said.err
    assert right in said.err
    assert [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts] == before


def test_a_download_that_fails_is_one_line_and_exit_code_1(
    saddle: Saddle, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    (place / "own.yaml").write_text(GAN.format(data="{name: mnist}", game="gan", networks=MLP))
    assert saddle("train", "own.yaml") == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "127.0.0.1:9" in said.err
    assert "by hand" in said.err
    assert not [path for path in (place.parent / "cache").rglob("*") if path.is_file()]
    assert not (place / "runs").exists()


def test_import_and_train_on_what_was_imported(saddle: Saddle, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert saddle("data", "import", "digits", "--out", "shards", "--rows-per-shard", "500") == 0
    assert "train 898, heldout 899 rows in 4 files" in capsys.readouterr().out
    back, digits = data.load("parquet", path="shards"), data.load("digits")
    for name in ("train", "heldout", "train_labels", "heldout_labels"):
        assert torch.equal(getattr(back, name), getattr(digits, name))
    text = GAN.format(data="{name: parquet, path: shards}", game="cgan", networks=CONDITIONAL)
    (place / "own.yaml").write_text(text)
    assert saddle("train", "own.yaml", "--out", "trained") == 0
    assert saddle("generate", "trained", "--class", "3", "-n", "5", "--out", "threes.npz") == 0
    with np.load("threes.npz") as written:
        assert written["samples"].shape == (5, 1, 8, 8)
        assert written["labels"].tolist() == [3] * 5
    capsys.readouterr()
    assert saddle("generate", "trained", "--class", "10") == 2
    assert capsys.readouterr().err == "saddle: class: 10 cannot be; it must be 0 to 9\n"
    assert saddle("data", "import", "digits", "--out", "shards", "--option", "seed=1") == 2
    assert "shards" in capsys.readouterr().err
    assert torch.equal(data.load("parquet", path="shards").train, digits.train)


def test_translate_writes_what_the_model_makes_of_the_images(
    saddle: Saddle, place: Path, game_in_small: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    list(train(game_in_small("cyclegan"), seed=0, folder=place / "trained"))
    translator = load_generator(place / "trained")
    digits = data.load("digits").heldout[:6]
    np.savez("digits.npz", samples=digits.numpy())
    assert saddle("translate", "trained", "digits.npz", "--out", "there.npz") == 0
    assert saddle("translate", "trained", "digits.npz", "--out", "back.npz", "--direction", "y_to_x") == 0
    for file, way in (("there.npz", "x_to_y"), ("back.npz", "y_to_x")):
        with np.load(file) as written:
            np.testing.assert_allclose(written["samples"], translator.translate(digits, way).numpy(), atol=1e-6)

    levels = ((digits[0, 0] + 1) * 127.5).round().byte().numpy()
    Image.fromarray(levels).save("one.png")
    assert saddle("translate", "trained", "one.png", "--out", "folder") == 0
    made = np.asarray(Image.open("folder/one.png"), dtype=np.float32)
    rounded = torch.from_numpy(levels / 127.5 - 1).float()[None, None]
    expected = ((translator.translate(rounded, "x_to_y")[0, 0] + 1) * 127.5).numpy()
    np.testing.assert_allclose(made, expected, atol=0.51)

    capsys.readouterr()
    for arguments, right in (
        (["trained", "nope.npz"], "nope.npz"),
        (["trained", "plain.txt"], "neither an image"),
        (["trained", "digits.npz", "--direction", "sideways"], "known: x_to_y, y_to_x"),
        (["trained", "digits.npz", "--out", "a.gif"], ".png, .npz"),
    ):
        assert saddle("translate", *arguments) == 2
        said = capsys.readouterr().err
        assert right in said
        assert said.count("\n") == 1

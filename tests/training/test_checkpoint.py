"""The checkpoint file: whole or absent, plain values only, and one line when it cannot be read."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saddlepoint.errors import SaddleError
from saddlepoint.spec import Pipeline
from saddlepoint.training import checkpoint
from saddlepoint.training.loop import train
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import CHECKPOINT, Training

Toy = Callable[..., Pipeline]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / CHECKPOINT) is None


def test_a_runs_checkpoint_holds_no_code(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    training = Training(toy(), 0, tmp_path, toy_setup)
    training.play()
    training.save()
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)  # refuses anything but tensors and plain values
    assert state["round"] == 1
    assert set(state["plain"]["networks"]) == set(state["plain"]["optimizers"]) == {"generator", "critic"}


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "code"])
def test_a_damaged_checkpoint_is_one_line(damage: str, toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    training = Training(toy(), 0, tmp_path, toy_setup)
    training.save()
    whole = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "garbage":
            path.write_bytes(b"not a checkpoint\n" * 100)
        case "empty":
            path.write_bytes(b"")
        case "code":
            torch.save({"identity": Path("anything but a plain value")}, path)
    with pytest.raises(SaddleError) as error:
        next(train(toy(), seed=0, folder=tmp_path, shared=toy_setup))
    line = str(error.value)
    assert line.startswith(f"{path} cannot be read as a checkpoint: ")
    assert line.endswith("; remove it to start over")
    assert "\n" not in line


def test_a_write_that_fails_says_why_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    checkpoint.save(path, {"round": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # stands in for a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, {"round": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load(path) == {"round": 1}
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]

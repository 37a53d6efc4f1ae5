"""A training in pieces, each in a folder of its own: equal to the whole where nothing changes, and steered where
hyperparameters do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saddlepoint.errors import SaddleError
from saddlepoint.generator import load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import Report, train
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import Training

Toy = Callable[..., Pipeline]


def told(report: Report) -> tuple[int, bool, dict[str, float], list[tuple[int, dict[str, float]]]]:
    return report.round, report.final, report.metrics, report.trace


def test_pieces_are_the_whole(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    *whole, final = [told(r) for r in train(toy(), seed=0, folder=tmp_path / "whole", shared=toy_setup)]
    pieces = []
    before = None
    for end in (4, 8, 12):
        folder = tmp_path / str(end)
        *reports, last = train(toy(), seed=0, folder=folder, shared=toy_setup, until=end, inherit=before)
        pieces += [told(report) for report in reports]
        before = folder
    assert pieces == whole
    assert told(last) == final
    theirs, ours = (load_generator(tmp_path / place).networks["generator"].state_dict() for place in ("whole", "12"))
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_a_piece_that_was_cut_short_goes_on_from_its_own_checkpoint(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    list(train(toy(), seed=0, folder=tmp_path / "a", shared=toy_setup, until=4))
    whole = [told(r) for r in train(toy(), seed=0, folder=tmp_path / "b", shared=toy_setup, inherit=tmp_path / "a")]
    piece = train(toy(), seed=0, folder=tmp_path / "c", shared=toy_setup, inherit=tmp_path / "a")
    first = [told(next(piece))]
    next(piece)  # round 8 is in its checkpoint now, and the process dies
    piece.close()
    again = train(toy(), seed=0, folder=tmp_path / "c", shared=toy_setup, inherit=tmp_path / "nowhere")
    assert first + [told(report) for report in again] == whole


def test_a_piece_inherits_weights_and_not_hyperparameters(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    list(train(toy(), seed=0, folder=tmp_path / "a", shared=toy_setup, until=4))
    child = Training(toy({"clip": 0.05, "lr_critic": 1e-4}), 0, tmp_path / "b", toy_setup)
    child.load(tmp_path / "a")
    parent = Training(toy(), 0, tmp_path / "a", toy_setup)
    parent.load()
    assert torch.equal(child.plain.whole["critic"], parent.plain.whole["critic"])
    assert child.round == 4
    for training, rate, clip in ((child, 1e-4, 0.05), (parent, 2e-3, 0.1)):
        training.play()
        [group] = training.plain.optimizers["critic"].param_groups
        assert group["lr"] == pytest.approx(rate, rel=1e-12)
        assert training.plain.whole["critic"].abs().max() <= clip
    assert not torch.equal(child.plain.whole["critic"], parent.plain.whole["critic"])


def test_nothing_to_inherit_is_said(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    with pytest.raises(SaddleError, match="holds no checkpoint to inherit"):
        next(train(toy(), seed=0, folder=tmp_path / "a", shared=toy_setup, inherit=tmp_path / "nowhere"))

"""What a run does otherwise as a job of a cluster: it tells its progress in lines, and refuses a node that is blind."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from saddlepoint import console
from saddlepoint.errors import SaddleError, UserError
from saddlepoint.spec import Pipeline
from saddlepoint.training.setup import setup
from saddlepoint.workflows import workers
from saddlepoint.workflows.plan import _warnings, plan
from saddlepoint.workflows.provenance import git_commit
from saddlepoint.workflows.sweep import sweep
from saddlepoint.workflows.trial import Order, work

Small = Callable[..., Pipeline]


def test_a_job_tells_a_line_for_each_trial(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SADDLE_PROGRESS", "lines")
    sweep(small(), view=console.watching)
    lines = capsys.readouterr().out.splitlines()
    last = {line.split()[0]: line for line in lines}
    assert list(last) == [f"trial-000{number}" for number in range(4)]
    for line in last.values():
        assert re.fullmatch(r"trial-\d{4} (complete|pruned) at round \d+, fid [\d.e+]+(: .*)?", line), line
    assert len(lines) == len(set(lines))  # nothing is said twice


def test_otherwise_a_pipe_hears_nothing(
    workplace: Path, small: Small, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SADDLE_PROGRESS", raising=False)
    sweep(small(), view=console.watching)
    assert capsys.readouterr().out == ""


def test_a_node_that_does_not_see_the_sweep_says_so_and_writes_nothing(tmp_path: Path, small: Small) -> None:
    folder = tmp_path / "not mounted" / "sweeps" / "digits" / "trials" / "0000"
    with pytest.raises(
        SaddleError, match=f"^{re.escape(socket.gethostname())} does not see the folder .*digits, which"
    ):
        work(Order(small().content(), 0, str(folder)), lambda report: None)
    assert list(tmp_path.iterdir()) == []


def test_a_job_knows_the_commit_that_was_submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SADDLE_COMMIT", "abc123-dirty")
    assert git_commit() == "abc123-dirty"
    monkeypatch.delenv("SADDLE_COMMIT")
    assert git_commit() == "none"


def test_the_workers_have_the_gpu_that_the_driver_of_a_cluster_need_not_have(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    pipeline = small("training.device=cuda", "resources.gpus=1")
    missing = "training.device: 'cuda' asked for, but torch sees no GPU here"
    with pytest.raises(UserError, match=f"^{missing}"):
        sweep(pipeline)
    assert not Path("sweeps").exists()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(
        SaddleError, match=f"^stopped: 3 trials in a row failed .*{missing}"
    ):  # on its workers, not here
        sweep(pipeline)


def test_a_gpu_that_no_trial_would_see_is_refused_and_told(
    workplace: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray shows GPUs to those who ask for them; what `saddle train` takes by itself, a trial must ask for."""
    refused = "training.device: 'cuda' asked for, and resources.gpus is 0: who asks Ray for no GPU sees none"
    for command in (sweep, plan):
        with pytest.raises(UserError, match=f"^{refused}"):
            command(small("training.device=cuda"))
    for device, warned in (("auto", True), ("cpu", False)):
        pipeline = small(f"training.device={device}")
        found = plan(pipeline)
        assert found.device == "cpu"
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.is_available", lambda: True)
            said = _warnings(found, pipeline, setup(pipeline, device="cpu"), 1.0)
        assert any(line.startswith("device: trials train on the CPU") for line in said) == warned


def test_several_workers_of_a_training_say_so_if_they_do_not_see_its_folder(tmp_path: Path, small: Small) -> None:
    order = Order(small().content(), 0, str(tmp_path / "not here"))
    with pytest.raises(
        SaddleError, match=f"^{re.escape(socket.gethostname())} does not see the folder .*not here, which"
    ):
        workers._work(order, lambda report: None)
    assert list(tmp_path.iterdir()) == []

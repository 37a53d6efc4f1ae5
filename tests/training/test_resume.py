"""A run that was stopped, however and whenever, and went on is bit for bit one that never stopped (CPU)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from saddlepoint.errors import UserError
from saddlepoint.generator import WEIGHTS
from saddlepoint.spec import Pipeline
from saddlepoint.training import checkpoint
from saddlepoint.training.loop import Report, train
from saddlepoint.training.sentinel import Diverged
from saddlepoint.training.setup import Setup
from saddlepoint.training.state import CHECKPOINT, Training

Toy = Callable[..., Pipeline]
Story = dict[str, dict[str, str]]


def tell(story: Story, report: Report) -> None:
    """Adds a report, its floats to the last bit; what was heard before must be heard the same again."""
    told = {f"trace {round}": values for round, values in report.trace}
    told[f"{'final' if report.final else 'report'} {report.round}"] = {
        **report.metrics,
        "best": float(report.best_round),
    }
    for key, values in told.items():
        bits = {name: value.hex() for name, value in values.items()}
        assert story.setdefault(key, bits) == bits, key


def run(pipeline: Pipeline, folder: Path, shared: Setup, story: Story, reports: int | None = None) -> Story:
    """Trains until the end, or stops while the given number of reports is out."""
    training = train(pipeline, seed=3, folder=folder, shared=shared)
    for number, report in enumerate(training, 1):
        tell(story, report)
        if number == reports:
            training.close()  # type: ignore[attr-defined]
            break
    return story


def parts(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a checkpoint, but for the seconds."""
    if isinstance(state, dict):
        for key, value in state.items():
            if key != "seconds":
                yield from parts(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from parts(value, f"{path}.{index}")
    else:
        yield path, state


def assert_same_end(a: Path, b: Path) -> None:
    """Weights, averages, running statistics, optimisers, random streams, data position: all of it."""
    first, second = (dict(parts(checkpoint.load(folder / CHECKPOINT))) for folder in (a, b))
    assert first.keys() == second.keys()
    assert any("running_mean" in path for path in first)
    for path, value in first.items():
        same = torch.equal(value, second[path]) if isinstance(value, torch.Tensor) else value == second[path]
        assert same, path
    assert (a / WEIGHTS).read_bytes() == (b / WEIGHTS).read_bytes()


DROPOUT = """
from torch import nn

def critic(sample_shape):
    return nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
"""


@pytest.fixture(params=["evaluations", "checkpoint_every", "dropout and adam"])
def pipeline(request: pytest.FixtureRequest, toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    if request.param == "evaluations":
        return toy()
    if request.param == "checkpoint_every":
        return toy({"training.checkpoint_every": 3, "training.log_every": 5})
    (tmp_path / "own_dropout.py").write_text(DROPOUT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    content = toy().content()
    content["game"] = {"name": "gan", "structure": {"z_dim": 4, "k": 2}}
    content["networks"]["discriminator"] = {"factory": "own_dropout:critic"}
    del content["networks"]["critic"]
    content["training"]["checkpoint_every"] = 1
    return Pipeline.parse(content)


@pytest.mark.parametrize("reports", [1, 2, 3])
def test_stopped_while_a_report_is_out(reports: int, pipeline: Pipeline, toy_setup: Setup, tmp_path: Path) -> None:
    whole = run(pipeline, tmp_path / "whole", toy_setup, {})
    assert sum(key.startswith("report") for key in whole) == 3
    heard = run(pipeline, tmp_path / "parts", toy_setup, {}, reports)
    assert heard != whole
    torch.manual_seed(12345)  # another process has another state
    assert run(pipeline, tmp_path / "parts", toy_setup, heard) == whole
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_stopped_over_and_over(pipeline: Pipeline, toy_setup: Setup, tmp_path: Path) -> None:
    whole = run(pipeline, tmp_path / "whole", toy_setup, {})
    heard: Story = {}
    for _ in range(4):
        run(pipeline, tmp_path / "parts", toy_setup, heard, reports=2)  # the report in hand, and one more
    assert run(pipeline, tmp_path / "parts", toy_setup, heard) == whole
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


class Killed(BaseException):
    pass


def die_in(round: int, monkeypatch: pytest.MonkeyPatch) -> None:
    play = Training.play

    def dies(self: Training) -> None:
        if self.round == round:
            raise Killed
        play(self)

    monkeypatch.setattr(Training, "play", dies)


@pytest.mark.parametrize("death", [2, 5, 7, 11])
def test_stopped_in_a_round(
    death: int, pipeline: Pipeline, toy_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(pipeline, tmp_path / "whole", toy_setup, {})
    heard: Story = {}
    with monkeypatch.context() as patch:
        die_in(death, patch)
        with pytest.raises(Killed):
            run(pipeline, tmp_path / "parts", toy_setup, heard)
    assert run(pipeline, tmp_path / "parts", toy_setup, heard) == whole
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_the_sentinel_remembers_what_it_saw_before_the_stop(
    toy: Toy, toy_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen generator shows at the second look, at round 8, though another life had the first."""
    pipeline = toy({"lr_generator": 1e-30, "networks.generator.norm": "none"})
    die_in(5, monkeypatch)
    with pytest.raises(Killed):
        run(pipeline, tmp_path, toy_setup, {})
    monkeypatch.undo()
    with pytest.raises(Diverged, match="the generator is frozen: not one weight moved up to round 8"):
        run(pipeline, tmp_path, toy_setup, {})


def test_a_finished_run_says_its_last_word_again(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    whole = run(toy(), tmp_path, toy_setup, {})
    again = run(toy(), tmp_path, toy_setup, {})
    assert again == {"final 12": whole["final 12"]}


def test_digits_with_a_dcgan(digits: Pipeline, digits_setup: Setup, tmp_path: Path) -> None:
    content = digits.content()
    content["networks"] = {
        "generator": {"factory": "dcgan_generator", "width": 4},
        "critic": {"factory": "dcgan_critic", "width": 4},
    }
    content["training"] |= {"rounds": 6, "evaluate_every": 2, "checkpoint_every": 1, "log_every": 2}
    pipeline = Pipeline.parse(content)
    whole = run(pipeline, tmp_path / "whole", digits_setup, {})
    heard = run(pipeline, tmp_path / "parts", digits_setup, {}, reports=2)
    assert run(pipeline, tmp_path / "parts", digits_setup, heard) == whole
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


PROGRAM = """
import os, signal, sys
from dataclasses import asdict
from pathlib import Path
import json
from saddlepoint.spec import Pipeline
from saddlepoint.training.loop import train
from saddlepoint.training.state import Training

death = int(sys.argv[1])
play = Training.play

def dies(self):
    if self.round == death:
        os.kill(os.getpid(), signal.SIGKILL)
    play(self)

Training.play = dies
for report in train(Pipeline.load("pipeline.yaml"), seed=3, folder=Path("run")):
    print(json.dumps({**asdict(report), "pictures": {}}), flush=True)
"""


@pytest.mark.slow
def test_killed_with_sigkill(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    pipeline = toy({"training.checkpoint_every": 3})
    whole = run(pipeline, tmp_path / "whole", toy_setup, {})
    (tmp_path / "pipeline.yaml").write_text(pipeline.yaml())

    def process(death: int) -> tuple[int, list[Report]]:
        command = [sys.executable, "-c", PROGRAM, str(death)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode, [Report(**json.loads(line)) for line in done.stdout.splitlines()]

    heard: Story = {}
    for death in (7, -1):
        code, reports = process(death)
        assert code == (0 if death < 0 else -signal.SIGKILL)
        for report in reports:
            tell(heard, report)
    assert heard == whole
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_another_configurations_or_seeds_checkpoint_is_refused(toy: Toy, toy_setup: Setup, tmp_path: Path) -> None:
    run(toy(), tmp_path, toy_setup, {}, reports=2)
    expected = f"{tmp_path / CHECKPOINT} belongs to another configuration or seed; use another folder, or remove it"
    for pipeline, seed in ((toy({"clip": 0.2}), 3), (toy(), 4)):
        with pytest.raises(UserError) as error:
            next(train(pipeline, seed=seed, folder=tmp_path, shared=toy_setup))
        assert str(error.value) == expected

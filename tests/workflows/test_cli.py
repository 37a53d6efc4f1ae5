"""Bad input as a user meets it: exit code 2, one line on stderr that names the key, nothing written."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Saddle = Callable[..., int]
SPACE = "game: wgan\nparameters:\n  {}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in").mkdir()
    files = {
        "broken.yaml": "name: [digits\n",
        "list.yaml": "- a\n- b\n",
        "unknown.yaml": SPACE.format("slip: {type: log_float, low: 0.1, high: 1.0, default: 0.5}"),
        "reversed.yaml": SPACE.format("clip: {type: log_float, low: 0.3, high: 0.003, default: 0.01}"),
        "zero.yaml": SPACE.format("clip: {type: log_float, low: 0, high: 0.3, default: 0.01}"),
        "negative.yaml": SPACE.format("clip: {type: float, low: -0.1, high: 0.3, default: 0.01}"),
        "nets_of_mine.py": "from torch import nn\n\ndef flat(z_dim):\n    return nn.Linear(z_dim, 7)\n",
        "images/readme.txt": "no picture here\n",
        "torn/a.png": "\x89PNG but no more",
        "torn/b.png": "\x89PNG but no more",
    }
    for name, content in files.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="latin-1")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "in"


FOLDER = ("--set", "data.name=image_folder", "--set")
CASES = {
    "unknown pipeline": (["digits-wgann"], "'digits-wgann'", "did you mean 'digits-wgan'?"),
    "no such file": (["nope/mine.yaml"], "nope/mine.yaml", "does not exist"),
    "not YAML": (["broken.yaml"], "broken.yaml: line 2", "not YAML"),
    "no mapping": (["list.yaml"], "list.yaml", "holds a list"),
    "unknown key": (["digits-wgan", "--set", "training.roundz=5"], "training", "did you mean 'rounds'?"),
    "set without value": (["digits-wgan", "--set", "training.rounds"], "--set", "key.path=value"),
    "space names nothing of the game": (
        ["digits-wgan", "--set", "search.space=unknown.yaml"], "search.space.parameters.slip", "did you mean 'clip'?"
    ),
    "low above high": (["digits-wgan", "--set", "search.space=reversed.yaml"], "parameters.clip.low: 0.3", "0.003"),
    "log range from 0": (["digits-wgan", "--set", "search.space=zero.yaml"], "clip.low: 0", "greater than 0"),
    "a range below 0": (["digits-wgan", "--set", "search.space=negative.yaml"], "clip: -0.1", "greater than 0"),
    "a space of another game": (["digits-wgan", "--set", "search.space=gan"], "search.space", "'wgan'"),
    "n_critic 0": (["digits-wgan", "--set", "game.structure.n_critic=0"], "n_critic: 0", "greater than or equal to 1"),
    "negative clip": (["digits-wgan", "--set", "game.hyperparameters.clip=-1"], "clip: -1", "greater than 0"),
    "a learning rate that is no number": (
        ["digits-wgan", "--set", "game.hyperparameters.lr_critic=fast"], "lr_critic: 'fast'", "number"
    ),
    "batch larger than the data": (
        ["digits-wgan", "--set", "training.batch_size=5000"], "training.batch_size: 5000", "898"
    ),
    "no such module": (
        ["digits-wgan", "--set", "networks.critic.factory=nope.nets:Critic"], "critic.factory", "no module 'nope'"
    ),
    "no such attribute": (
        ["digits-wgan", "--set", "networks.critic.factory=nets_of_mine:flatt"], "'flatt'", "did you mean 'flat'?"
    ),
    "output does not fit": (
        ["digits-wgan", "--set", "networks.generator={factory: 'nets_of_mine:flat'}"],
        "networks.generator",
        "(7,), but the data has (1, 8, 8)",
    ),
    "no images": (["digits-wgan", *FOLDER, "data.path=images"], "data.path: 'images'", "no image"),
    "corrupt image": (["digits-wgan", *FOLDER, "data.path=torn"], "torn/", "cannot be read"),
    "no GPU": (["digits-wgan", "--set", "training.device=cuda"], "training.device: 'cuda'", "no GPU"),
    "unknown metric": (["digits-wgan", "--set", "objective.metric=fud"], "objective.metric: 'fud'", "'fid'"),
    "too many samples": (["digits-wgan", "--set", "objective.samples=5000"], "objective.samples: 5000", "898"),
    "unknown sampler": (["digits-wgan", "--set", "search.sampler=tpee"], "search.sampler: 'tpee'", "tpe"),
    "unsafe name": (["digits-wgan", "--set", "name=../up"], "name: '../up'", "letters, digits"),
    "unknown device": (["digits-wgan", "--set", "training.device=gpu"], "training.device: 'gpu'", "cuda:N"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_bad_input_is_one_line_and_exit_code_2(
    saddle: Saddle,
    command: str,
    case: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, key, right = CASES[case]
    if case == "no GPU":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = sorted(place.rglob("*.yaml"))
    assert saddle(command, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("saddle: ")
    assert said.err.count("\n") == 1
    assert key in said.err
    assert right in said.err
    assert sorted(place.rglob("*.yaml")) == before
    assert not (place / "sweeps").exists()


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["generate", "models:/nope@champion"], "'nope' is not known"),
        (["generate", "nowhere"], "neither a folder nor"),
        (["generate", "nowhere", "--out", "a.gif"], ".png, .npz, .parquet"),
        (["evaluate", "models:/nope/3"], "'nope' is not known"),
        (["show", "nope"], "sweep: 'nope' is not known"),
        (["sweep"], "either a PIPELINE or --resume SWEEP"),
        (["confirm", "nope"], "'nope' is not known"),
        (["plan"], "PIPELINE"),
        (["walk"], "walk"),
        (["plan", "digits-wgan", "--seed", "x"], "--seed"),
    ],
)
def test_wrong_commands_are_one_line_too(
    saddle: Saddle,
    arguments: list[str],
    right: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert saddle(*arguments) == 2
    said = capsys.readouterr().err
    assert right in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")],
)
def test_a_disk_that_takes_nothing(
    saddle: Saddle,
    number: int,
    words: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert saddle("sweep", "digits-wgan") == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_plan_prints_what_would_run_and_starts_nothing(
    saddle: Saddle, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saddle("plan", "digits-wgan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["trials"] == 40
    assert plan["rungs"] == {"400": 40, "1200": 13}
    assert plan["expected_rounds"] == 40 * 400 + 13 * 800 + 4 * 800
    assert plan["retrainings"] == 12
    assert [built["values"].get("n_critic") for built in plan["structures"]] == [None, 5, 1]  # its own is 2
    assert plan["structures"][0]["parameters"] == {"critic": 64 * 128 + 128 + 128 * 128 + 128 + 128 + 1,
                                  "generator": 64 * 128 + 128 + 128 * 128 + 128 + 128 * 64 + 64}  # fmt: skip
    assert all(built["round_milliseconds"] > 0 for built in plan["structures"])
    assert not (place / "sweeps").exists()
    assert not (place / "mlflow.db").exists()


def test_help_answers_without_the_heavy_rooms() -> None:
    program = (
        "import sys; from saddlepoint import cli; sys.argv = ['saddle', '--help']\n"
        "try: cli.main()\n"
        "finally: print(sorted({'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in (
        "run",
        "train",
        "sweep",
        "plan",
        "confirm",
        "promote",
        "runs",
        "show",
        "generate",
        "evaluate",
    ):
        assert command in done.stdout


def test_ctrl_c_says_one_line_and_fails(
    workplace: Path, saddle: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("saddlepoint.workflows.train.train_here", pressed)
    assert saddle("train", "digits-wgan") == 1
    assert capsys.readouterr().err == (
        "saddle: stopped; everything that was done is on disk, and the same command goes on\n"
    )

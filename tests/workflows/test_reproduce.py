"""A promoted model trained again from its card: equal here, not equal from another seed, and what a command says."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.training.loop import Report
from saddlepoint.workflows import sweep as sweep_room
from saddlepoint.workflows.confirm import CONFIRMATION
from saddlepoint.workflows.reproduce import Reproduction, reproduce
from saddlepoint.workflows.run import run

from ..conftest import SEARCH, TOY
from .conftest import in_process

MODEL = "models:/ring-generator@champion"
Saddle = Callable[..., int]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder in which a model was promoted."""
    changes = {
        "name": "rings",
        "search": SEARCH | {"trials": 1},
        "confirm": {"top": 1, "seeds": 2, "draws": 2},
        "promote": {"model": "ring-generator"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reproduce"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sweep_room, "execute", in_process)
        patch.setattr(sweep_room.cluster, "running", lambda **_: sweep_room.nullcontext())
        run(Pipeline.parse(TOY | changes))
        yield Path.cwd()


@pytest.fixture
def tampered(promoted: Path, tmp_path: Path) -> Callable[..., Path]:
    """The package of the champion, with another value at a path of its card."""

    def change(*path: str, value: Any) -> Path:
        folder = tmp_path / "package"
        shutil.copytree(registry.fetch(None, MODEL), folder)
        card = inner = json.loads((folder / "card.json").read_text())
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "card.json").write_text(json.dumps(card))
        return folder

    return change


def again(model: str | Path, **options: Any) -> tuple[Reproduction, list[str]]:
    """What came of it, and in order what was heard: differences, and rounds."""
    heard: list[str] = []

    @contextmanager
    def progress(pipeline: Pipeline) -> Iterator[Callable[[Report], None]]:
        yield lambda report: heard.append(f"round {report.round}")

    return reproduce(str(model), progress=progress, say=heard.append, **options), heard


def test_the_same_training_gives_the_same_weights(promoted: Path) -> None:
    [version] = registry.models(None, "ring-generator")
    done, heard = again(MODEL)
    assert done.equal
    assert done.weights == done.recorded == version.tags["saddle.weights"]
    assert done.differences == []
    assert heard == ["round 4", "round 8", "round 12", "round 12"]
    assert done.scores == done.recorded_scores
    assert done.folder is None


def test_a_folder_keeps_what_was_trained(promoted: Path, tmp_path: Path) -> None:
    done, _ = again(MODEL, folder=tmp_path / "mine")
    assert done.folder == tmp_path / "mine"
    assert registry.weights_hash(tmp_path / "mine") == done.recorded


def test_another_seed_gives_other_weights(tampered: Callable[..., Path]) -> None:
    done, _ = again(tampered("pipeline", "seed", value=1))
    assert not done.equal
    assert done.weights != done.recorded
    assert done.differences == []
    assert done.scores != done.recorded_scores
    assert done.scores.keys() == done.recorded_scores.keys()


def test_other_data_are_told_of_before_the_training(tampered: Callable[..., Path]) -> None:
    done, heard = again(tampered("pipeline", "data", "std", value=0.06))
    assert not done.equal
    [difference] = done.differences
    assert difference.startswith("data: ")
    assert heard[:2] == [difference, "round 4"]


def test_another_machine_is_named_though_the_bits_may_agree(tampered: Callable[..., Path]) -> None:
    done, _ = again(tampered("machine", "cpu", value="Z80"))
    assert done.equal
    assert done.differences[0].startswith("cpu: Z80 there, ")


def test_a_card_beside_other_weights_is_told(tampered: Callable[..., Path]) -> None:
    done, heard = again(tampered("weights", value="0" * 64))
    assert done.equal  # what lies there is what was trained
    assert heard[0].startswith("the card speaks of other weights (000000000000)")


def test_a_model_is_not_overwritten_by_its_reproduction(
    tampered: Callable[..., Path], refusal: Callable[[Callable[[], object]], str]
) -> None:
    folder = tampered("confidence", value=0.9)
    before = registry.weights_hash(folder)
    assert "is the model itself" in refusal(lambda: again(folder, folder=folder))
    assert registry.weights_hash(folder) == before


def test_the_commands_exit_codes_and_lines(
    promoted: Path, tampered: Callable[..., Path], saddle: Saddle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saddle("reproduce", MODEL) == 0
    assert "equal: the weights are the registered ones, bit for bit" in capsys.readouterr().out
    other = str(tampered("pipeline", "seed", value=1))
    assert saddle("reproduce", other) == 1
    said = capsys.readouterr()
    assert "not equal: sha256 " in said.out
    assert said.err == ""
    assert saddle("reproduce", other, "--json") == 1
    assert json.loads(capsys.readouterr().out)["equal"] is False

    assert saddle("rollback", "ring-generator") == 1
    assert capsys.readouterr().err == (
        "saddle: ring-generator: no version was champion before version 1; there is nothing to roll back to\n"
    )
    assert saddle("promote", "rings", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "it is the champion already"


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["rollback", "ring"], "model: 'ring' is not known; known: ring-generator"),
        (["rollback", "ring-generator", "--alias", "champ"], "'champ' is not known; did you mean 'champion'?"),
        (["reproduce", "nowhere"], "neither a folder nor"),
        (["reproduce", "models:/ring-generator/7"], "'7' is not known"),
        (["reproduce", "sweeps"], "sweeps holds no card.json"),
        (["promote", "ring"], "sweep: 'ring' is not known"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    promoted: Path, saddle: Saddle, capsys: pytest.CaptureFixture[str], arguments: list[str], right: str
) -> None:
    assert saddle(*arguments) == 2
    said = capsys.readouterr()
    assert right in said.err
    assert said.err.count("\n") == 1


def test_a_folder_without_a_store_stays_empty(
    workplace: Path, saddle: Saddle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert saddle("rollback", "ring-generator") == 2
    assert "model: 'ring-generator' is not known" in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


def test_the_evidence_lies_whole_in_the_sweeps_folder(promoted: Path) -> None:
    written = json.loads((promoted / "sweeps" / "rings" / CONFIRMATION).read_text())
    assert [written[key] for key in ("metric", "second", "seeds", "draws", "confidence", "bounds")] == [
        "emd", None, 2, 2, 0.95, []
    ]  # fmt: skip
    assert written["floor"]["emd"] > 0
    [only] = written["candidates"]  # the one trial was the published defaults
    assert only["name"] == "published defaults"
    assert only["feasible"] is True
    assert only["failures"] == []
    seeds = [score["emd"] for score in only["scores"]]
    assert only["estimates"]["emd"]["mean"] == pytest.approx(sum(seeds) / 2)
    assert only["estimates"]["emd"].keys() == {"mean", "sd", "low", "high", "count"}

"""What a user writes: what is read, and what is refused, in which words."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from saddlepoint.spec import Pipeline, shipped

Content = dict[str, Any]
Changed = Callable[[str, Any], Content]
Refusal = Callable[[Callable[[], object]], str]


@pytest.mark.parametrize("name", shipped("pipelines"))
def test_every_shipped_pipeline_loads_and_survives_its_own_yaml(name: str, tmp_path: Path) -> None:
    pipeline = Pipeline.load(name)
    assert pipeline.name == name
    assert Pipeline.parse(pipeline.content()) == pipeline
    (tmp_path / "resolved.yaml").write_text(pipeline.yaml())
    again = Pipeline.load(tmp_path / "resolved.yaml")
    assert again == pipeline
    assert again.fingerprint() == pipeline.fingerprint()


def test_the_shipped_digits_are_the_papers_game_with_the_searched_space() -> None:
    pipeline = Pipeline.load("digits-wgan")
    assert pipeline.search is not None
    space = pipeline.search.space
    assert space.defaults() == {"lr_critic": 5e-5, "lr_generator": 5e-5, "clip": 0.01, "n_critic": 5}  # Algorithm 1
    published = pipeline.with_values(space.defaults())
    assert (published.structure().z_dim, published.structure().n_critic) == (64, 5)
    assert tuple(published.hyperparameters()) == (5e-5, 5e-5, 0.01)
    found = {**pipeline.hyperparameters()._asdict(), "n_critic": pipeline.structure().n_critic}
    assert all(space.parameters[name].contains(value) for name, value in found.items())  # what its sweep found
    assert pipeline.objective.metric == "fid"


def test_a_file_by_path_finds_a_space_beside_it(toy_content: Content, tmp_path: Path, changed: Changed) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(changed("search/space", "spaces/own.yaml")))
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "own.yaml").write_text(yaml.safe_dump(toy_content["search"]["space"]))
    assert Pipeline.load(tmp_path / "mine.yaml") == Pipeline.parse(toy_content)


def test_overrides_by_path() -> None:
    pipeline = Pipeline.load(
        "digits-wgan",
        [
            "training.rounds=30",
            "game.structure.n_critic=2",
            "game.hyperparameters.clip=3e-2",
            "networks.generator.widths=[8, 9]",
            "networks.critic.slope=0.1",
            "promote=null",
            "data.seed=7",
            "objective.metric=kid",
            " name =other",
        ],
    )
    assert pipeline.training.rounds == 30
    assert pipeline.training.batch_size == 64
    assert pipeline.structure().n_critic == 2
    assert pipeline.hyperparameters().clip == 0.03
    assert pipeline.networks["generator"].options == {"widths": [8, 9]}
    assert pipeline.networks["critic"].options == {"widths": [128, 128], "slope": 0.1}
    assert pipeline.promote is None
    assert pipeline.data.options == {"seed": 7}
    assert (pipeline.name, pipeline.objective.metric) == ("other", "kid")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.rounds", "--set: 'training.rounds' is not of the form key.path=value"),
        ("=3", "--set: '=3' is not of the form key.path=value"),
        ("training.runds=3", "digits-wgan: training: 'runds' is not known; did you mean 'rounds'?"),
        ("trainig.rounds=3", "digits-wgan: 'trainig' is not known; did you mean 'training'?"),
        ("name.first=x", "name.first: 'name' holds 'digits-wgan', which has no keys of its own"),
        ("training.rounds=0", "digits-wgan: training.rounds: 0 should be greater than or equal to 1"),
        ("training.ema=1", "digits-wgan: training.ema: 1 should be less than 1"),
        ("training.device=gpu", "digits-wgan: training.device: 'gpu' should be auto, cpu, cuda or cuda:N"),
        ("training.decay=cosine", "digits-wgan: training.decay: 'cosine' should be 'linear' or 'constant'"),
        ("objective.metric=fed", "objective.metric: 'fed' is not known; did you mean 'fid'?"),
        (
            "objective.metric=class_share",
            "objective.metric: 'class_share' has no better direction to search in",
        ),
        ("seed=-1", "digits-wgan: seed: -1 should be greater than or equal to 0"),
        ("resources.gpus=-0.5", "digits-wgan: resources.gpus: -0.5 should be greater than or equal to 0"),
    ],
)
def test_overrides_that_cannot_be(override: str, message: str, refusal: Refusal) -> None:
    assert refusal(lambda: Pipeline.load("digits-wgan", [override])) == message


@pytest.mark.parametrize("name", ["../up", "a/b", "", " x", "-dash", "x" * 65, "new\nline", "name\n"])
def test_a_name_that_is_no_folder_is_refused(name: str, toy_content: Content, refusal: Refusal) -> None:
    assert refusal(lambda: Pipeline.parse(toy_content | {"name": name})).startswith("pipeline: name: ")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: [1, 2", ": line 1, column 12: not YAML: "),
        ("- a\n- b", ": a pipeline holds keys and values, this file holds a list"),
        ("", ": a pipeline holds keys and values, this file holds nothing"),
        ("just words", ": a pipeline holds keys and values, this file holds 'just words'"),
        ("name: a\nname: b", ": line 2, column 1: the key 'name' stands twice"),
        ("name: a\n\tb: c", ": line 2, column 1: not YAML: "),
    ],
)
def test_a_file_that_is_no_pipeline(text: str, part: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert refusal(lambda: Pipeline.load(path)).startswith(f"{path}{part}")


def test_a_pipeline_that_is_not_there(tmp_path: Path, refusal: Refusal) -> None:
    missing = str(tmp_path / "mine.yaml")
    assert refusal(lambda: Pipeline.load(missing)) == f"pipeline: the file {missing!r} does not exist"
    expected = "pipeline: 'digits-wgam' is not known; did you mean 'digits-wgan'?"
    assert refusal(lambda: Pipeline.load("digits-wgam")) == expected


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("game/name", "wgam", "game.name: 'wgam' is not known; did you mean 'wgan'?"),
        ("game/name", "gan", "game.structure: 'n_critic' is not known; known: form, k, z_dim"),
        (
            "game/name",
            "no_such_module:game",
            "game.name: 'no_such_module:game': there is no module 'no_such_module', here or installed",
        ),
        (
            "game/name",
            "math:sqrt",
            "game.name: the module of 'math:sqrt' has no Structure, Hyperparameters, game; a game is "
            "a module with Structure, Hyperparameters and game(structure)",
        ),
        ("game/structure/n_critic", 0, "game.structure: n_critic: 0 should be greater than or equal to 1"),
        ("game/structure/n_critic", 2.5, "game.structure: n_critic: 2.5 should be a valid integer"),
        ("game/structure/n_critic", True, "game.structure: n_critic: True should be a valid integer"),
        ("game/structure/z_dims", 4, "game.structure: 'z_dims' is not known; did you mean 'z_dim'?"),
        ("game/hyperparameters/clip", -0.1, "game.hyperparameters: clip: -0.1 should be greater than 0"),
        ("game/hyperparameters/clip", 0, "game.hyperparameters: clip: 0 should be greater than 0"),
        ("game/hyperparameters/clip", "0.1", "game.hyperparameters: clip: '0.1' should be a valid number"),
        (
            "game/hyperparameters/lr_critic",
            float("nan"),
            "game.hyperparameters: lr_critic: nan should be a finite number",
        ),
        (
            "game/hyperparameters/lr_critic",
            float("inf"),
            "game.hyperparameters: lr_critic: inf should be a finite number",
        ),
        (
            "game/hyperparameters/lr_crtic",
            0.1,
            "game.hyperparameters: 'lr_crtic' is not known; did you mean 'lr_critic'?",
        ),
        ("networks/critic", None, "networks.critic: is missing; the game wgan needs critic, generator"),
        (
            "networks/encoder",
            {"factory": "mlp_critic"},
            "networks.encoder: 'encoder' is not known; known: critic, generator",
        ),
        (
            "networks/critic/factory",
            "mlp_critik",
            "networks.critic.factory: 'mlp_critik' is not known; did you mean 'mlp_critic'?",
        ),
        (
            "networks/critic/factory",
            "no_such_module:Net",
            "networks.critic.factory: 'no_such_module:Net': there is no module 'no_such_module', here or installed",
        ),
        ("networks/critic/factory", None, "pipeline: networks.critic.factory: is missing"),
        ("training/batch_size", 0, "pipeline: training.batch_size: 0 should be greater than or equal to 1"),
        ("training/evaluate_every", None, "pipeline: training.evaluate_every: is missing"),
        ("objective/samples", 1, "pipeline: objective.samples: 1 should be greater than or equal to 2"),
        ("search/trials", 0, "pipeline: search.trials: 0 should be greater than or equal to 1"),
        ("search/eta", 1, "pipeline: search.eta: 1 should be greater than or equal to 2"),
        ("data", {"modes": 8}, "pipeline: data.name: is missing"),
        ("confirm", {"top": 0}, "pipeline: confirm.top: 0 should be greater than or equal to 1"),
        ("training", 5, "pipeline: training: 5 should be keys and values"),
    ],
)
def test_what_is_wrong_is_one_line_with_key_value_and_remedy(
    path: str, value: Any, message: str, changed: Changed, refusal: Refusal
) -> None:
    assert refusal(lambda: Pipeline.parse(changed(path, value))) == message


def test_defaults_are_the_papers(toy_content: Content) -> None:
    del toy_content["game"]["hyperparameters"], toy_content["game"]["structure"]
    pipeline = Pipeline.parse(toy_content)
    assert pipeline.structure().n_critic == 5
    assert pipeline.hyperparameters()._asdict() == {"lr_critic": 5e-5, "lr_generator": 5e-5, "clip": 0.01}


OWN_GAME = """
from saddlepoint.games.wgan import Hyperparameters, Structure, game as theirs

def game(s):
    return theirs(s)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_game.py").write_text(OWN_GAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_game", None)


@pytest.mark.usefixtures("own_module")
def test_ones_own_game_by_import_path(toy_content: Content, changed: Changed, refusal: Refusal) -> None:
    toy_content["game"]["name"] = toy_content["search"]["space"]["game"] = "own_game:game"
    pipeline = Pipeline.parse(toy_content)
    assert pipeline.hyperparameters().clip == 0.1
    assert pipeline.with_values({"clip": 0.2}).hyperparameters().clip == 0.2
    wrong = changed("game/hyperparameters/clap", 1)
    assert "'clap' is not known; did you mean 'clip'?" in refusal(lambda: Pipeline.parse(wrong))

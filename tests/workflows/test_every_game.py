"""What the platform does with every game, the user's game of docs/own_game.md included: train, resume, show, ship."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from saddlepoint import games
from saddlepoint.generator import WEIGHTS, Generator, load_generator
from saddlepoint.spec import Pipeline
from saddlepoint.tracking import registry
from saddlepoint.tracking.tracker import Tracker
from saddlepoint.training.loop import Report, train
from saddlepoint.training.state import CHECKPOINT
from saddlepoint.workflows.evaluate import evaluate
from saddlepoint.workflows.generate import load

Small = Callable[..., Pipeline]
every_game = pytest.mark.parametrize("name", [*games.GAMES, "lsgan:game"])

PICTURES = {"cyclegan": {"translations"}, "avb": {"samples", "reconstructions", "latents"}}
PICTURES["vae"] = PICTURES["avb"]


def comparable(reports: list[Report]) -> list[tuple[object, ...]]:
    return [(r.round, r.metrics, r.trace, r.pictures, r.best_round, r.final) for r in reports]


def flat(state: Any, path: str = "") -> dict[str, Any]:
    """Every value of a checkpoint by its path, tensors as lists; without the seconds that it took."""
    if isinstance(state, dict):
        return {k: v for key, inner in state.items() for k, v in flat(inner, f"{path}/{key}").items()}
    if isinstance(state, list | tuple):
        return flat(dict(enumerate(state)), path)
    value = state.tolist() if isinstance(state, torch.Tensor) else state
    return {} if path == "/seconds" else {path: value}


@every_game
def test_a_training_that_is_stopped_and_resumed_is_one_that_never_was(
    name: str, game_in_small: Small, tmp_path: Path
) -> None:
    """Bit for bit: scores, logs, pictures, weights, optimisers, pools and every random stream."""
    pipeline = game_in_small(name, {"training.checkpoint_every": 2})
    whole = list(train(pipeline, seed=0, folder=tmp_path / "whole"))
    first = list(islice(train(pipeline, seed=0, folder=tmp_path / "parts"), 1))  # killed after the report of round 3
    second = list(train(pipeline, seed=0, folder=tmp_path / "parts"))
    assert [report.round for report in second] == [3, 6, 6]  # the checkpoint is of round 2
    assert comparable(first)[0][:2] == comparable(second)[0][:2]
    assert comparable(second) == comparable(whole)
    states = [torch.load(tmp_path / part / CHECKPOINT, weights_only=True) for part in ("whole", "parts")]
    assert flat(states[0]) == flat(states[1])
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "parts" / WEIGHTS).read_bytes()


@every_game
def test_every_evaluation_comes_with_what_is_worth_looking_at(name: str, game_in_small: Small, tmp_path: Path) -> None:
    *evaluations, final = train(game_in_small(name), seed=0, folder=tmp_path)
    for report in evaluations:
        assert set(report.pictures) == PICTURES.get(name, {"samples"})
        assert all(png.startswith(b"\x89PNG") for png in report.pictures.values())
    assert final.pictures == {}


def used(generator: Generator, served: mlflow.pyfunc.PyFuncModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the generator here and the registered model make of the same input, in each way that there is."""
    if generator.game.translate:
        images = torch.rand(5, *generator.sample_shape) * 2 - 1
        return [
            (generator.translate(images, way).numpy(), served.predict(images.numpy(), params={"direction": way}))
            for way in generator.game.translate
        ]
    z = generator.latents(5, torch.Generator().manual_seed(4))
    if generator.classes is None:
        return [(generator(z).numpy(), served.predict(z.numpy()))]
    y = torch.arange(5) % generator.classes
    return [(generator(z, y).numpy(), served.predict({"z": z.numpy(), "y": y.numpy()}))]


@every_game
def test_what_is_registered_does_what_was_trained(
    name: str, game_in_small: Small, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(train(game_in_small(name), seed=0, folder=workplace / "trained"))
    trained = load_generator(workplace / "trained")
    with Tracker(workplace / "tracking", tracking_uri=None, experiment="small") as tracker:
        tracker.start_run("one", name="one", params={}, tags={})
        assert tracker.drain(60)
        version = registry.log_generator(None, tracker.run_id("one"), workplace / "trained", name="shipped", tags={})
    registry.set_alias(None, "shipped", "champion", version)
    served = mlflow.pyfunc.load_model("models:/shipped@champion")
    for here, there in used(trained, served):
        assert here.shape == (5, *trained.sample_shape)
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    again = load("models:/shipped@champion")
    assert again.card == trained.card
    for net, network in again.networks.items():
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, trained.networks[net].state_dict()[key]), f"{net}.{key}"
    scores = evaluate("models:/shipped@champion", samples=32, features="pixels")
    assert scores.protocol["samples"] == 32
    assert np.isfinite(list(scores.scores.values())).all()

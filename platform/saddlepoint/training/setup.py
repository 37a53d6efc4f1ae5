"""From a pipeline to the things themselves: data, device, score, networks. What is wrong in it shows here."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from .. import data, games, networks
from ..data import Dataset
from ..errors import SaddleError, UserError
from ..games import Batch, Game, Nets
from ..metrics.scorer import Scorer
from ..spec import Pipeline
from .randomness import stream


@dataclass(frozen=True)
class Setup:
    """What the trials of one sweep share. Built once in a process and kept (`setup`)."""

    dataset: Dataset
    scorer: Scorer
    device: torch.device


def setup(pipeline: Pipeline) -> Setup:
    objective = pipeline.objective
    dataset, scorer = _load(
        pipeline.data.name,
        json.dumps(pipeline.data.options, sort_keys=True),
        objective.samples,
        objective.features,
        objective.feature_weights,
    )
    if objective.metric not in scorer.metrics:
        scorer.floor([objective.metric])  # raises, and says why it cannot be had here
    return Setup(dataset, scorer, choose_device(pipeline.training.device))


@lru_cache(maxsize=2)  # a warm worker serves many trials on the same data
def _load(name: str, options: str, samples: int | None, features: str, weights: str | None) -> tuple[Dataset, Scorer]:
    dataset = data.load(name, **json.loads(options))
    return dataset, Scorer(dataset, samples=samples, features=features, feature_weights=weights)


def choose_device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(asked)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"training.device: {asked!r} asked for, but torch sees no GPU here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"training.device: {asked!r} asked for, but the last GPU here is cuda:{count - 1}")
    return device


def build_game(pipeline: Pipeline) -> Game:
    return games.find(pipeline.game.name).game(pipeline.structure())


def network_arguments(pipeline: Pipeline, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """For each network its factory and whole options: what builds it, here or wherever its weights go."""
    sizes = {name: size for name, size in asdict(pipeline.structure()).items() if name.endswith("_dim")}
    facts: dict[str, Any] = {**sizes, "sample_shape": list(dataset.sample_shape)}
    if dataset.classes is not None:
        facts["classes"] = dataset.classes
    return {
        name: {
            "factory": spec.factory,
            "options": networks.with_facts(spec.factory, spec.options, facts, f"networks.{name}"),
        }
        for name, spec in pipeline.networks.items()
    }


def build_networks(pipeline: Pipeline, game: Game, setup: Setup) -> dict[str, nn.Module]:
    """The networks on the device, in the order of the game, after one look whether they fit the data."""
    arguments = network_arguments(pipeline, setup.dataset)
    built = {
        name: networks.build(arguments[name]["factory"], arguments[name]["options"], f"networks.{name}")
        for name in game.networks
    }
    _check(game, built, setup.dataset, pipeline.hyperparameters(), pipeline.training.batch_size)
    return {name: network.to(setup.device) for name, network in built.items()}


def _check(game: Game, built: Mapping[str, nn.Module], dataset: Dataset, h: Any, batch_size: int) -> None:
    """Samples must have the data's shape, and every loss must take a batch of it. Nothing is left changed."""
    modes = {name: network.training for name, network in built.items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for network in built.values():
            network.eval()  # running statistics stay as they are
        _try(game, Nets(built), dataset, h, 2)
        for name, network in built.items():
            network.train(modes[name])
        if batch_size == 1:  # batch norm refuses it, though only while it trains
            _try(game, Nets({name: copy.deepcopy(net) for name, net in built.items()}), dataset, h, 1)


def _try(game: Game, nets: Nets, dataset: Dataset, h: Any, n: int) -> None:
    wanted = tuple(dataset.sample_shape)
    rng = stream(0, "check")
    batch = Batch(dataset.train[:n], None if dataset.train_labels is None else dataset.train_labels[:n])
    try:
        got = tuple(game.sample(nets, game.noise(n, rng)).shape)
    except Exception as error:
        raise _misfit(game.generator, wanted, n, error) from error
    if got != (n, *wanted):
        shape = got[1:]
        raise UserError(f"networks.{game.generator}: gives samples of shape {shape}, but the data has {wanted}")
    for name, player in game.players.items():
        try:
            loss, _ = player.loss(nets, batch, game.noise(n, rng), h)
        except Exception as error:
            raise _misfit(player.owns[0], wanted, n, error) from error
        if loss.shape != ():
            shape = tuple(loss.shape)
            raise UserError(f"networks.{player.owns[0]}: the loss of the {name} is no scalar: {shape}")


def _misfit(network: str, wanted: tuple[int, ...], n: int, error: Exception) -> SaddleError:
    if isinstance(error, SaddleError):
        return error
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if n == 1:
        return UserError(f"training.batch_size: 1 does not suit networks.{network}: {reason}")
    return UserError(f"networks.{network}: does not fit the data of shape {wanted}: {reason}")

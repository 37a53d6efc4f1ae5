"""From a pipeline to the things themselves: data, device, score, networks. What is wrong in it shows here."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from .. import data, games, metrics, networks
from ..data import Dataset
from ..errors import SaddleError, UserError
from ..games import Batch, Game, Nets
from ..metrics import Offers, Scorer, TranslationScorer
from ..randomness import stream
from ..spec import Pipeline
from .subjects import offers

AnyScorer = Scorer | TranslationScorer


@dataclass(frozen=True)
class Setup:
    """What the trials of one sweep share. Built once in a process and kept (`setup`)."""

    dataset: Dataset
    scorer: AnyScorer
    device: torch.device

    @property
    def on_cpu(self) -> "Setup":
        """The same, to try in memory what workers will train: the GPU is theirs."""
        return replace(self, device=torch.device("cpu"))


def setup(pipeline: Pipeline, *, device: str | None = None) -> Setup:
    """device: instead of the pipeline's own, where the trainings run elsewhere.

    Raises UserError: the data lack what the game needs, the objective cannot be had on them, or the device is missing.
    """
    objective, data_options = pipeline.objective, json.dumps(pipeline.data.options, sort_keys=True)
    game = build_game(pipeline)
    dataset = _dataset(pipeline.data.name, data_options)
    _suits(pipeline.game.name, game, dataset)
    scorer = _scorer(
        pipeline.data.name,
        data_options,
        offers(game, z_dim(pipeline)),
        objective.samples,
        objective.features,
        objective.feature_weights,
    )
    for name in objective.built().names:
        if name not in scorer.metrics:
            scorer.floor([name])  # raises, and says why it cannot be had here
    return Setup(dataset, scorer, choose_device(device or pipeline.training.device))


def _suits(name: str, game: Game, dataset: Dataset) -> None:
    if game.needs == "labels" and dataset.classes is None:
        raise UserError(f"game.name: {name!r} needs labels, and the data set {dataset.name!r} has none; "
                        "choose labelled data, or a game that is not conditional")  # fmt: skip
    if game.needs == "domains" and dataset.target is None:
        raise UserError(f"game.name: {name!r} translates between two domains, and the data {dataset.name!r} are one; "
                        "choose digits_pairs, unpaired_folder or unpaired")  # fmt: skip


# a warm worker serves many trials on the same data


@lru_cache(maxsize=2)
def _dataset(name: str, options: str) -> Dataset:
    return data.load(name, **json.loads(options))


@lru_cache(maxsize=4)
def _scorer(
    name: str, options: str, offers: Offers, samples: int | None, features: str, weights: str | None
) -> AnyScorer:
    return metrics.scorer(_dataset(name, options), offers, samples=samples, features=features, feature_weights=weights)


def z_dim(pipeline: Pipeline) -> int | None:
    """The latent coordinates; None for a game that draws none."""
    found: int | None = getattr(pipeline.structure(), "z_dim", None)
    return found


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
    return games.build(pipeline.game.name, pipeline.structure())


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


def describe(pipeline: Pipeline, game: Game, dataset: Dataset) -> dict[str, Any]:
    """The card of the generator that this pipeline's training will leave: see `generator.py`."""
    arguments = network_arguments(pipeline, dataset)
    card: dict[str, Any] = {
        "game": {"name": pipeline.game.name, "structure": asdict(pipeline.structure())},
        "networks": {name: arguments[name] for name in game.ships},
        "z_dim": z_dim(pipeline),
        "sample_shape": list(dataset.sample_shape),
        "data": {
            "name": pipeline.data.name,
            "options": pipeline.data.options,
            "fingerprint": dataset.fingerprint,
        },
    }
    if dataset.train_labels is not None and dataset.classes is not None:
        shares = torch.bincount(dataset.train_labels.cpu(), minlength=dataset.classes) / len(dataset.train_labels)
        card["label_shares"] = shares.tolist()
    return card


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
    with torch.random.fork_rng(devices=[]):  # with gradients: a loss may take one inside
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
    labels = None if dataset.train_labels is None else dataset.train_labels[:n]
    batch = Batch(dataset.train[:n], labels if dataset.target is None else dataset.target.train[:n])
    for network, make in _uses(game, nets, batch, n, rng):
        try:
            got = tuple(make().shape)
        except Exception as error:
            raise _misfit(network, wanted, n, error) from error
        if got != (n, *wanted):
            raise UserError(f"networks.{network}: gives samples of shape {got[1:]}, but the data has {wanted}")
    for name, player in game.players.items():
        try:
            noise = game.noise(n, rng)
            past = player.pool.fakes(nets, batch, noise) if player.pool else None
            loss, _ = player.loss(nets, batch._replace(past=past), noise, h)
        except Exception as error:
            raise _misfit(player.owns[0], wanted, n, error) from error
        if loss.shape != ():
            shape = tuple(loss.shape)
            raise UserError(f"networks.{player.owns[0]}: the loss of the {name} is no scalar: {shape}")


def _uses(
    game: Game, nets: Nets, batch: Batch, n: int, rng: torch.Generator
) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """What makes samples, each beside the network that is to blame if they do not fit."""
    sample = game.sample
    if sample is not None:
        labels = batch.y if game.needs == "labels" else None
        yield game.ships[0], lambda: sample(nets, (game.latent or game.noise)(n, rng), labels)
    for network, function, source in zip(game.ships, game.translate.values(), (batch.x, batch.y), strict=False):
        assert source is not None  # _suits: there are two domains
        yield network, lambda function=function, source=source: function(nets, source)  # type: ignore[misc]


def _misfit(network: str, wanted: tuple[int, ...], n: int, error: Exception) -> SaddleError:
    if isinstance(error, SaddleError):
        return error
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if n == 1:
        return UserError(f"training.batch_size: 1 does not suit networks.{network}: {reason}")
    return UserError(f"networks.{network}: does not fit the data of shape {wanted}: {reason}")

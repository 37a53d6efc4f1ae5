"""What a user writes: one pipeline, as validated types. YAML, `--set`, command line and Python share this vocabulary.

    pipeline = Pipeline.load("digits-wgan", ["training.rounds=300"])
    pipeline.with_values({"clip": 0.03, "n_critic": 2})     # a trial: the same pipeline with other values

Every unknown name is an error. Loading checks all that can be known without opening the data: the game, its structure
and hyperparameters, the networks that it needs, and every value that the search space can reach.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from . import games, networks
from .errors import UserError, unknown
from .space import IntRange, Space
from .spec_objective import ObjectiveSpec
from .spec_resources import BudgetSpec, ResourcesSpec
from .validation import Strict, checked, parse_yaml, read_yaml, wrong

Count = Annotated[int, Field(ge=1)]


def _safe(value: str) -> str:
    """A name that is safe as a folder, as a study, and as a registered model."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise wrong(
            "",
            value,
            "should be at most 64 letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise wrong("", value, "should be auto, cpu, cuda or cuda:N")
    return value


Name = Annotated[str, AfterValidator(_safe)]


class Open(BaseModel):
    """A section whose further keys are the arguments of a function; that function's signature is the check."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class DataSpec(Open):
    name: str


class NetworkSpec(Open):
    factory: str


class GameSpec(Strict):
    name: str
    structure: dict[str, Any] = Field(default_factory=dict)
    hyperparameters: dict[str, Any] = Field(default_factory=dict)


class TrainingSpec(Strict):
    rounds: Count
    batch_size: Count = 64
    decay: Literal["linear", "constant"] = "linear"  # linear: constant for half of the rounds, then down to 0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the generator's moving average; 0: none
    evaluate_every: Count
    log_every: Count = 25
    checkpoint_every: Count | None = None  # rounds; as often as it evaluates if not given
    device: Annotated[str, AfterValidator(_device)] = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # what the four mean: training/speed.py
    channels_last: bool = False
    compile: Literal["none", "default", "cuda_graphs"] = "none"
    accumulate: Count = 1  # parts in which a move's batch passes


class PopulationSpec(Strict):
    """Population-based training: members that are trained side by side, piece by piece. After each piece the worst go
    on from the weights of the best, with changed hyperparameters. A trial is then one piece of one member."""

    members: Annotated[int, Field(ge=4)] = 8
    every: Count  # rounds of a piece, a multiple of training.evaluate_every
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25  # of the members: so many of the worst give way to the best
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25  # chance that a changed parameter is drawn anew


class SearchSpec(Strict):
    space: Space
    population: PopulationSpec | None = None  # in place of a pruner; it says how many trials there are
    trials: Count = 20
    seeds: Count = 1  # trainings of each trial, played side by side; their mean is the trial's score
    budget: BudgetSpec = BudgetSpec()
    failures: Count = 3  # as many identical failures in a row stop the sweep
    keep: Count = 5  # the best trials keep their generators
    disk_gb: Annotated[float, Field(gt=0)] | None = None  # of trial folders together
    sampler: Literal["tpe", "random", "qmc", "cmaes", "gp"] = "tpe"
    pruner: Literal["successive_halving", "hyperband", "median", "none"] = "successive_halving"
    min_rounds: Count | None = None  # before the first decision to prune; rounds / eta^3 if not given
    eta: Annotated[int, Field(ge=2)] = 3  # of the trials at a rung, the best 1/eta go on
    ledger: str | None = None  # a database URL; SQLite in the sweep's folder if not given


class ConfirmSpec(Strict):
    top: Count = 2
    seeds: Count = 3
    draws: Annotated[int, Field(ge=2)] = 5  # independent sets of samples behind every number of a promotion
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # of every interval


class PromoteSpec(Strict):
    model: Name
    alias: Name = "champion"


FREE = {"trials", "ledger", "budget", "failures", "keep", "disk_gb"}  # of a search: may change while it goes on


class Pipeline(Strict):
    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    experiment: str = "saddlepoint"
    data: DataSpec
    game: GameSpec
    networks: dict[str, NetworkSpec]
    training: TrainingSpec
    objective: ObjectiveSpec = ObjectiveSpec()
    search: SearchSpec | None = None
    confirm: ConfirmSpec = ConfirmSpec()
    promote: PromoteSpec | None = None
    resources: ResourcesSpec = ResourcesSpec()

    @classmethod
    def load(cls, pipeline: str | Path, overrides: Iterable[str] = ()) -> Self:
        """A shipped pipeline by name or a YAML file by path, with `key.path=value` overrides."""
        path = find(str(pipeline), "pipelines")
        content = read_yaml(path, "pipeline")
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals or not key.strip():
                raise UserError(f"--set: {override!r} is not of the form key.path=value")
            _assign(content, key.strip(), parse_yaml(value, f"--set {key}"))
        return cls.parse(content, str(pipeline), path.parent)

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str = "pipeline", folder: Path | None = None) -> Self:
        """Validated from plain data; a search space given by name or path is read and becomes part of it."""
        content = dict(content)
        search = content.get("search")
        if isinstance(search, Mapping) and isinstance(search.get("space"), str):
            space = Space.load(find(search["space"], "search_spaces", folder))
            content["search"] = {**search, "space": space}
        return checked(cls, content, where).consistent()

    def consistent(self) -> Self:
        """Itself, if its parts fit together; raises UserError otherwise."""
        structure, _ = self.structure(), self.hyperparameters()
        needed = games.build(self.game.name, structure).networks
        for name in needed:
            if name not in self.networks:
                raise UserError(f"networks.{name}: is missing; the game {self.game.name} needs {', '.join(needed)}")
        for name, network in self.networks.items():
            if name not in needed:
                raise unknown(f"networks.{name}", name, needed)
            networks.find(network.factory, f"networks.{name}")
        self.objective.check()
        self.resources.check(self.training.batch_size, self.training.accumulate)
        if self.resources.workers > 1 and ":" in self.training.device:
            raise UserError(f"training.device: {self.training.device!r} is one GPU, and resources.workers is "
                            f"{self.resources.workers}; give cuda, and each worker has its own")  # fmt: skip
        if self.search is not None:
            self._reachable(self.search.space)
            if self.search.population is not None:
                return self._peopled(self.search, self.search.population)
        return self

    def _peopled(self, search: SearchSpec, population: PopulationSpec) -> Self:
        """Itself, with what a population decides; raises UserError for what does not go with one."""
        members, every, rounds = population.members, population.every, self.training.rounds
        if every % self.training.evaluate_every or every >= rounds:
            raise UserError(f"search.population.every: {every} should be a multiple of training.evaluate_every, "
                            f"{self.training.evaluate_every}, and less than training.rounds, {rounds}")  # fmt: skip
        for name, parameter in search.space.parameters.items():
            if self.shapes(name) and parameter.type != "fixed":
                raise UserError(f"search.population: {name} is no hyperparameter of the game, and members go on with "
                                "each other's networks; fix it in search.space, or leave it out")  # fmt: skip
        if self.objective.second is not None:
            raise UserError("search.population: ranks by one metric; make objective.second one of the constraints")
        own: dict[str, Any] = {"trials": members * -(-rounds // every), "pruner": "none", "seeds": 1}
        for key, right in own.items():
            given = getattr(search, key)
            if key in search.model_fields_set and given != right:
                raise UserError(f"search.{key}: {given} does not go with search.population, whose {members} members "
                                f"make it {right}; leave it out")  # fmt: skip
        return self.model_copy(update={"search": search.model_copy(update=own)})

    def _reachable(self, space: Space) -> None:
        """Every name of the space is one that a trial can set, and every end of a range a value that it can take."""
        if space.game != self.game.name:
            raise UserError(f"search.space: is for the game {space.game!r}, but game.name is {self.game.name!r}")
        for name in space.names:
            if self._path(name)[0] not in ("training", "networks", "game", "objective"):
                raise UserError(
                    f"search.space.parameters.{name}: cannot be searched; a path leads into game, networks or training"
                )
        for corner in space.corners():
            try:
                self.with_values(corner)
            except UserError as error:
                raise UserError(f"search.space.parameters: with {corner}: {error}") from error
        for name in (
            "training.batch_size",
            "training.accumulate",
        ):  # whose parts must be whole between the corners, too
            parameter = space.parameters.get(name)
            if isinstance(parameter, IntRange) and self._parted(space):
                raise UserError(f"search.space.parameters.{name}: a range holds batches that do not divide into parts "
                                "(resources.workers times training.accumulate); give choices")  # fmt: skip

    def _parted(self, space: Space) -> bool:
        """Whether a batch may be divided, among workers or one part after another."""
        return self.resources.workers > 1 or self.training.accumulate > 1 or "training.accumulate" in space.parameters

    # what a trial may set: a bare name belongs to the game, a dotted one is a path in the pipeline

    def _path(self, name: str) -> tuple[str, ...]:
        if "." in name:
            return tuple(name.split("."))
        algorithm = games.find(self.game.name)
        for part, kind in (
            ("hyperparameters", algorithm.Hyperparameters),
            ("structure", algorithm.Structure),
        ):
            if name in _names(kind):
                return ("game", part, name)
        raise unknown(
            f"search.space.parameters.{name}",
            name,
            _names(algorithm.Hyperparameters) + _names(algorithm.Structure),
        )

    def shapes(self, name: str) -> bool:
        """Whether that parameter of a search space decides what is built and run, and not only a number in it."""
        return self._path(name)[:2] != ("game", "hyperparameters")

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same pipeline with other values: `{"clip": 0.02, "training.batch_size": 32}`."""
        if not values:
            return self
        content = self.content()
        for name, value in values.items():
            _assign(content, ".".join(self._path(name)), value)
        content["search"] = None  # a trial has no search of its own
        return checked(type(self), content, "").consistent()

    def structure(self) -> Any:
        return _fill(games.find(self.game.name).Structure, self.game.structure, "game.structure")

    def hyperparameters(self) -> Any:
        return _fill(games.find(self.game.name).Hyperparameters, self.game.hyperparameters, "game.hyperparameters")

    def parameters(self) -> dict[str, Any]:
        """All that determines one training, flat and complete (defaults filled in): the parameters of its run."""
        structure = {name: getattr(self.structure(), name) for name in _names(type(self.structure()))}
        flat: dict[str, Any] = {"game": self.game.name, **structure, **self.hyperparameters()._asdict()}
        flat["seed"] = self.seed
        for section in ("data", "networks", "training", "objective"):
            flat.update(_flatten(section, self.content()[section]))
        return flat

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted path."""
        return {k: v for key, inner in self.content().items() for k, v in _flatten(key, inner).items()}

    def content(self) -> dict[str, Any]:
        """Plain data that `parse` reads back to the same pipeline."""
        content: dict[str, Any] = self.model_dump(mode="json")
        return content

    def yaml(self) -> str:
        return str(yaml.safe_dump(self.content(), sort_keys=False))

    def fingerprint(self, *, extend: bool = False) -> str:
        """Equal for two pipelines whose trials can stand in one sweep. How long, where and what for may differ; if one
        extends the other, also the search space and the rounds of a trial."""
        content = {
            key: value
            for key, value in self.content().items()
            if key not in ("name", "experiment", "confirm", "promote", "resources")
        }
        content["training"] = {key: value for key, value in content["training"].items() if key != "device"}
        content["search"] = self.search and self.search.model_dump(
            mode="json", exclude=FREE | {"space"} if extend else FREE
        )
        if extend:
            del content["training"]["rounds"]
        content["game"] |= {
            "structure": str(self.structure()),
            "hyperparameters": str(self.hyperparameters()),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def shipped(kind: Literal["pipelines", "search_spaces"]) -> dict[str, Path]:
    """The files that come with the package, by name."""
    inside = Path(str(files("saddlepoint"))) / kind
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / kind  # a checkout keeps them at its top
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str, kind: Literal["pipelines", "search_spaces"], folder: Path | None = None) -> Path:
    """A shipped file by name, or a path (relative to `folder`, then to the working folder)."""
    known = shipped(kind)
    if name in known:
        return known[name]
    for path in ([folder / name] if folder else []) + [Path(name)]:
        if path.is_file():
            return path
    what = {"pipelines": "pipeline", "search_spaces": "search.space"}[kind]
    if name.endswith((".yaml", ".yml")) or "/" in name:
        raise UserError(f"{what}: the file {name!r} does not exist")
    raise unknown(what, name, known)


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = content.get(part)
        if inner is None:
            inner = {}
        if not isinstance(inner, Mapping):
            raise UserError(f"{key}: {part!r} holds {inner!r}, which has no keys of its own")
        content[part] = dict(inner)
        content = content[part]
    content[last] = value


def _flatten(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in _flatten(f"{prefix}.{key}", inner).items()}
    return {prefix: value}


class _Exact(Strict):
    model_config = ConfigDict(strict=True)  # "5" and true are no numbers


def _names(kind: type[Any]) -> list[str]:
    """The fields of a Structure (a dataclass) or of Hyperparameters (a NamedTuple)."""
    return list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in fields(kind)]


def _model(kind: type[Any]) -> type[Strict]:
    """A validating model with the fields of a Structure or of Hyperparameters, their annotations and defaults."""
    hints = get_type_hints(kind, include_extras=True)
    if hasattr(kind, "_fields"):
        defaults = dict(kind._field_defaults)
    else:
        defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    shape: Any = {name: (hints[name], defaults.get(name, ...)) for name in _names(kind)}
    model: type[Strict] = create_model(kind.__name__, __base__=_Exact, **shape)
    return model


def _fill(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A game's own type from what the user gave, with its ranges (`Annotated[float, Gt(0)]`) checked."""
    parsed = checked(_model(kind), dict(values), where)
    return kind(**{name: getattr(parsed, name) for name in _names(kind)})

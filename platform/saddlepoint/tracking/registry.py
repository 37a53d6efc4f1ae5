"""Generators as registered models: logged, found again, named by an alias, fetched.

A generator package is a folder with `generator.safetensors` and `generator.json` (see `generator.py`).
It becomes an MLflow model whose code is `generator_model.py`:
`mlflow.pyfunc.load_model("models:/NAME@champion").predict(z)` draws samples anywhere.
Every function takes the tracking URI first, and raises SaddleError when the store fails.
"""

import hashlib
import re
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from ..errors import UserError, unknown
from ..generator import CARD, WEIGHTS, Generator, load_generator
from ..imports import resolve as import_path
from ..remote import Place
from .store import KEY_TAG, SWEEP_TAG, connect, database, explained, pages, resolve

WEIGHTS_TAG = "saddle.weights"  # sha256 of generator.safetensors
NEEDS = ("saddlepoint", "torch", "numpy", "safetensors")


@dataclass(frozen=True)
class RegisteredVersion:
    name: str
    version: int
    run_id: str | None
    aliases: tuple[str, ...]
    tags: dict[str, str]
    description: str  # Markdown, as the UI shows it
    created: int  # milliseconds since 1970

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def weights_hash(package: Place) -> str:
    """SHA-256 of the generator's weights, in hexadecimal."""
    return hashlib.sha256((package / WEIGHTS).read_bytes()).hexdigest()


def log_generator(
    tracking_uri: str | None,
    run_id: str,
    package: Path,
    *,
    name: str,
    tags: Mapping[str, str],
    description: str = "",
    files: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Logs the package as a model of the run and registers it under `name`; returns the version.

    Asked again for the same weights with the same tags `saddle.sweep` and `saddle.key`, it returns the version that
    there is, with its tags and description renewed: a command can be repeated after a crash.

    Args:
        files: texts by file name that lie beside the generator, where `fetch` finds them.
    """
    uri = resolve(tracking_uri)
    if not re.fullmatch(r"[\w .-]+", name):
        raise UserError(f"model: {name!r} may hold only letters, digits, spaces, dots, dashes and underscores")
    generator = load_generator(package)
    identity = {**tags, WEIGHTS_TAG: weights_hash(package)}
    client = connect(uri)
    with explained(uri):
        for known in _versions(client, name):
            if all(known.tags.get(tag) == identity.get(tag) for tag in (SWEEP_TAG, KEY_TAG, WEIGHTS_TAG)):
                for tag, value in identity.items():
                    client.set_model_version_tag(name, str(known.version), tag, value)
                client.update_model_version(name, str(known.version), description)
                return known.version
        model_id, place = _log_model(client, run_id, package, generator, identity, files)
        with suppress(MlflowException):  # there is one; if something else is wrong, the next line says so
            client.create_registered_model(name)
        made = client.create_model_version(
            name, place, run_id, dict(identity), description=description, model_id=model_id
        )
        return int(made.version)


def champion(tracking_uri: str | None, name: str, alias: str = "champion") -> RegisteredVersion | None:
    """The version that bears the alias; None if no version does."""
    return next((known for known in models(tracking_uri, name) if alias in known.aliases), None)


def models(tracking_uri: str | None, name: str | None = None) -> list[RegisteredVersion]:
    """The versions, oldest first, of one registered model or of all."""
    uri = resolve(tracking_uri)
    if (path := database(uri)) is not None and not path.exists():
        return []
    client = connect(uri)
    with explained(uri):
        names = _names(client) if name is None else [name]
        return [known for each in names for known in _versions(client, each)]


def set_alias(tracking_uri: str | None, name: str, alias: str, version: int) -> None:
    """Moves the alias to that version. Raises UserError: no such model or version, no name for an alias."""
    uri = resolve(tracking_uri)
    client = connect(uri)
    with explained(uri):
        _one(client, name, version=str(version))
        try:
            client.set_registered_model_alias(name, alias, str(version))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise UserError(f"alias: {alias!r} cannot be used: {error}") from error


def reigning(tracking_uri: str | None, name: str, alias: str = "champion") -> RegisteredVersion:
    """The version that bears the alias. Raises UserError: no such model, or no version bears it."""
    uri = resolve(tracking_uri)
    if (path := database(uri)) is not None and not path.exists():
        raise unknown("model", name, [])
    client = connect(uri)
    with explained(uri):
        return _one(client, name, alias=alias)


def tag_version(tracking_uri: str | None, name: str, version: int, tags: Mapping[str, str]) -> None:
    uri = resolve(tracking_uri)
    client = connect(uri)
    with explained(uri):
        for tag, value in tags.items():
            client.set_model_version_tag(name, str(version), tag, value)


def tag_model(tracking_uri: str | None, name: str, tags: Mapping[str, str]) -> None:
    """Tags of the registered model itself: what is true of all its versions."""
    uri = resolve(tracking_uri)
    client = connect(uri)
    with explained(uri):
        for tag, value in tags.items():
            client.set_registered_model_tag(name, tag, value)


def model_tags(tracking_uri: str | None, name: str) -> dict[str, str]:
    """None for a model that there is not."""
    uri = resolve(tracking_uri)
    client = connect(uri)
    with explained(uri):
        found = _registered(client, name)
        return {} if found is None else dict(found.tags)


def fetch(tracking_uri: str | None, model: str, into: Path | None = None) -> Path:
    """The package of `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN/NAME`, as a local folder.

    Args:
        into: where to; None: where it lies if that is on this machine, else a new temporary folder.

    Raises:
        UserError: another form of URI; no such model, alias, version or run; no generator there.
    """
    uri = resolve(tracking_uri)
    registered = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", model)
    logged = re.fullmatch(r"runs:/([^/]+)/(.+)", model)
    client = connect(uri)
    with explained(uri):
        if registered:
            known = _one(client, registered[1], alias=registered[2], version=registered[3])
            place = client.get_model_version_download_uri(known.name, str(known.version))
        elif logged:
            place = _place_in_run(client, logged[1], logged[2])
        else:
            raise UserError(f"model: {model!r} is none of models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/NAME")
        files = list_artifacts(f"{place}/artifacts", tracking_uri=uri)
        if "generator.json" not in [PurePosixPath(file.path).name for file in files]:
            raise UserError(f"model: {model!r} is no generator of saddlepoint: it holds no generator.json")
        local = str(into) if into else None
        return Path(download_artifacts(f"{place}/artifacts", dst_path=local, tracking_uri=uri))


def _log_model(
    client: MlflowClient,
    run_id: str,
    package: Path,
    generator: Generator,
    tags: dict[str, str],
    files: Mapping[str, str],
) -> tuple[str, str]:
    """What `mlflow.pyfunc.log_model` does, for a named run and store. Returns the model's id and place."""
    experiment = client.get_run(run_id).info.experiment_id
    for left in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if left.tags.get(WEIGHTS_TAG) == tags[WEIGHTS_TAG]:
            if left.status == LoggedModelStatus.READY:
                return left.model_id, left.artifact_location
            client.delete_logged_model(left.model_id)  # a crash left it half logged
    model = client.create_logged_model(experiment, "generator", run_id, tags, model_type="generator")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    signature, example = _face(generator)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {file: package / file for file in (CARD, WEIGHTS)}
        for file, text in files.items():
            artifacts[file] = Path(folder, file)
            artifacts[file].write_text(text)
        save_model(
            f"{folder}/model",
            mlflow_model=Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id),
            python_model=str(Path(__file__).with_name("generator_model.py")),
            artifacts={file: str(path) for file, path in artifacts.items()},
            code_paths=_own_code(generator.card) or None,
            signature=signature,
            input_example=example,
            pip_requirements=[f"{needed}=={installed(needed).partition('+')[0]}" for needed in NEEDS],
        )
        client.log_model_artifacts(model.model_id, f"{folder}/model")
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id, model.artifact_location


def _place_in_run(client: MlflowClient, run_id: str, name: str) -> str:
    """Where the model lies that the run has logged under that name; the youngest if there are several."""
    try:
        experiment = client.get_run(run_id).info.experiment_id
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"model: there is no run {run_id!r}") from error
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ready = {m.name: m.artifact_location for m in reversed(models) if m.status == LoggedModelStatus.READY}
    if name not in ready:
        raise unknown(f"model of run {run_id!r}", name, ready)
    return str(ready[name])


def _face(generator: Generator) -> tuple[ModelSignature, Any]:
    """What the model takes and gives, and an example of what it takes: see `generator_model.py`."""
    number = np.dtype(np.float32)
    samples = TensorSpec(number, (-1, *generator.sample_shape))
    if generator.game.translate:
        direction = ParamSpec("direction", "string", next(iter(generator.game.translate)))
        example = np.random.default_rng(0).uniform(-1, 1, (2, *generator.sample_shape)).astype(np.float32)
        return ModelSignature(Schema([samples]), Schema([samples]), ParamSchema([direction])), example
    z = generator.latents(4, torch.Generator().manual_seed(0)).numpy()
    latents = TensorSpec(number, (-1, *z.shape[1:]), "z" if generator.classes else None)
    if generator.classes is None:
        return ModelSignature(Schema([latents]), Schema([samples])), z
    labels = TensorSpec(np.dtype(np.int64), (-1,), "y")
    return ModelSignature(Schema([latents, labels]), Schema([samples])), {"z": z, "y": np.arange(4) % generator.classes}


def _own_code(card: Mapping[str, Any]) -> list[str]:
    """The user's modules, which the model takes along: those of game and networks, and what lies beside them.

    Installed packages stay out; names of ours need none.
    """
    found: set[str] = set()
    for key, name in [("game.name", card["game"]["name"])] + [
        (f"networks.{net}.factory", described["factory"]) for net, described in card["networks"].items()
    ]:
        module, colon, _ = name.partition(":")
        if not colon or module.partition(".")[0] == "saddlepoint":
            continue
        import_path(key, name)
        root = _place(module.partition(".")[0])
        if root is None:
            continue
        tops = {name.partition(".")[0] for name in list(sys.modules)} - {"__main__", "saddlepoint"}
        found |= {str(place) for top in tops if (place := _place(top)) and place.parent == root.parent}
    return sorted(found)


def _place(top: str) -> Path | None:
    """The file or folder of a top-level module; None if it is built in or installed."""
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    folders = list(getattr(module, "__path__", []))
    if file is None and not folders:
        return None
    place = Path(file) if file and not folders else Path(folders[0])
    libraries = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return None if libraries & set(place.parents) else place


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _versions(client: MlflowClient, name: str) -> list[RegisteredVersion]:
    """Oldest first; none if there is no such model."""
    model = _registered(client, name)
    if model is None:
        return []
    found = [
        RegisteredVersion(
            name=name,
            version=int(each.version),
            run_id=each.run_id or None,
            aliases=tuple(sorted(alias for alias, number in model.aliases.items() if int(number) == int(each.version))),
            tags=dict(each.tags),
            description=each.description or "",
            created=each.creation_timestamp,
        )
        for each in pages(lambda token: client.search_model_versions(f"name = '{name}'", page_token=token))
    ]
    return sorted(found, key=lambda version: version.version)


def _names(client: MlflowClient) -> list[str]:
    return sorted(m.name for m in pages(lambda token: client.search_registered_models(page_token=token)))


def _one(client: MlflowClient, name: str, *, alias: str | None = None, version: str | None = None) -> RegisteredVersion:
    versions = _versions(client, name)
    if not versions:
        raise unknown("model", name, _names(client))
    for known in versions:
        if alias in known.aliases or version == str(known.version):
            return known
    if alias is not None:
        raise unknown(f"alias of model {name!r}", alias, [a for known in versions for a in known.aliases])
    raise unknown(f"version of model {name!r}", version, [known.version for known in versions])

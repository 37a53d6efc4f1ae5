"""An event as calls of MLflow, such that saying it twice changes nothing.

What makes that so:

- A run is found by its tags `saddle.sweep` and `saddle.key` before it is made, so it is made once, even when
  a crash or a lost answer falls between "made" and "noted".
- A metric point carries the time at which it was spooled. MLflow's SQL store keeps points under the primary
  key (run, key, time, step, value, is-NaN), and drops a point that it has.
- A parameter equal to the one recorded is left out; tags, states and artifacts overwrite themselves.
- A picture's file name, random in `MlflowClient.log_image`, is derived from its run, name and step.

What MLflow makes of numbers that are none: NaN stays NaN; infinity is kept as the largest double, and shown
as infinity by MLflow's UI and by `query`.
"""

import getpass
import hashlib
import io
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from PIL import Image

from ..files import write_text
from .spool import Event
from .store import KEY_TAG, PARENT_TAG, SWEEP_TAG, connect, experiment_id, redacted, search

MAX_METRICS, MAX_PARAMS = 1000, 100  # of one log_batch; tags count as params do
MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 8000  # characters
MAX_REQUEST = 150_000  # characters; MLflow takes 1e6 bytes, and JSON may need 6 for a character
THUMBNAIL = 256  # pixels

Entity = TypeVar("Entity", Param, RunTag)


class Undeliverable(ValueError):
    """An event that can never be sent, whatever the tracking server does."""


class Delivery:
    """Sends one sweep's events. Not thread-safe; after any exception the same events can be sent again."""

    def __init__(self, folder: Path, uri: str, experiment: str, sweep: str) -> None:
        self.outbox = folder / "outbox"
        self.run_ids: dict[str, str] = {}  # key -> MLflow's run id
        self._uri, self._experiment, self._sweep = uri, experiment, sweep
        self._record = folder / "runs.json"
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self.moved = not self._recall()  # nothing was ever sent to this store from this folder
        self._noted = len(self.run_ids)

    def send(self, events: Sequence[Event]) -> None:
        """Events of one run keep their order; runs overtake each other. Raises what MLflow raises."""
        client = self._client or self._connect()
        self._client = None  # after an exception: connect anew, and look which runs there are
        waiting: dict[str, list[Event]] = {}  # metrics and tags of a run go together
        for event in events:
            key = event["run"]
            if event["kind"] in ("log", "tag"):
                waiting.setdefault(key, []).append(event)
                continue
            self._batch(client, key, waiting.pop(key, []))
            match event["kind"]:
                case "start":
                    self._start(client, event)
                case "finish":
                    client.set_terminated(self._run_id(key), event["status"], event["time"])
                case "artifact":
                    self._artifact(client, event)
                case "picture":
                    self._picture(client, event)
                case kind:
                    raise Undeliverable(f"unknown kind of event: {kind!r}")
        for key, rest in waiting.items():
            self._batch(client, key, rest)
        if len(self.run_ids) != self._noted:
            self._note()
        self._client = client

    def probe(self) -> None:
        """Raises when it is the store that is ill."""
        self._connect()

    def _connect(self) -> MlflowClient:
        client = connect(self._uri)
        self._experiment_id = experiment_id(client, self._uri, self._experiment)
        for run in search(client, [self._experiment_id], f"tags.`{SWEEP_TAG}` = '{self._sweep}'"):
            if self.run_ids.setdefault(run.data.tags[KEY_TAG], run.info.run_id) != run.info.run_id:
                client.delete_run(run.info.run_id)  # made twice, by a server too slow to say so
        return client

    def _run_id(self, key: str) -> str:
        if key not in self.run_ids:
            raise Undeliverable(f"run {key!r} was never started")
        return self.run_ids[key]

    def _start(self, client: MlflowClient, event: Event) -> None:
        key, tags, recorded = event["run"], dict(event["tags"]), {}
        if key in self.run_ids:
            recorded = client.get_run(self.run_ids[key]).data.params
            client.update_run(self.run_ids[key], status="RUNNING")
        else:
            identity = {SWEEP_TAG: self._sweep, KEY_TAG: key, "mlflow.source.name": "saddle", **_user()}
            if event["parent"] is not None:
                identity[PARENT_TAG] = self._run_id(event["parent"])
            run = client.create_run(self._experiment_id, event["time"], identity, event["name"])
            self.run_ids[key] = run.info.run_id
        params = {_name(name): _short(value, MAX_PARAM) for name, value in event["params"].items()}
        for name, value in params.items():
            if recorded.get(name, value) != value:  # MLflow never changes a parameter; extending a sweep does
                tags[f"saddle.now.{name}"] = value
        fresh = [Param(name, value) for name, value in params.items() if name not in recorded]
        for chunk in _requests(fresh):
            client.log_batch(self.run_ids[key], params=chunk, synchronous=True)
        self._tags(client, key, tags)

    def _batch(self, client: MlflowClient, key: str, events: Sequence[Event]) -> None:
        points = [
            Metric(_name(name), float(value), event["time"], event["step"])
            for event in events
            for name, value in event.get("metrics", {}).items()
        ]
        for start in range(0, len(points), MAX_METRICS):
            chunk = points[start : start + MAX_METRICS]
            client.log_batch(self._run_id(key), metrics=chunk, synchronous=True)
        tags: dict[str, str] = {}
        for event in events:
            tags |= event.get("tags", {})
        self._tags(client, key, tags)

    def _tags(self, client: MlflowClient, key: str, tags: dict[str, str]) -> None:
        entities = [RunTag(_name(name), _short(value, MAX_TAG)) for name, value in tags.items()]
        for chunk in _requests(entities):
            client.log_batch(self._run_id(key), tags=chunk, synchronous=True)

    def _artifact(self, client: MlflowClient, event: Event) -> None:
        if (file := self._blob(client, event, event["path"])) is not None:
            folder = str(PurePosixPath(event["path"]).parent)
            client.log_artifact(self._run_id(event["run"]), str(file), None if folder == "." else folder)

    def _picture(self, client: MlflowClient, event: Event) -> None:
        """As `MlflowClient.log_image`: the picture and a small copy, under names that the UI's grid reads."""
        run_id = self._run_id(event["run"])
        name = re.sub(r"[^a-zA-Z0-9_\-. ~]", "_", event["name"].replace("/", "~"))
        unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._sweep}/{event['run']}/{name}/{event['step']}")
        stem = f"{name}+step+{event['step']}+timestamp+{event['time']}+{unique}"
        if (file := self._blob(client, event, f"images/{stem}.png")) is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            png, webp = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}+compressed.webp"
            shutil.copyfile(file, png)
            _thumbnail(file).save(webp, lossless=True)
            client.log_artifact(run_id, str(png), "images")
            client.log_artifact(run_id, str(webp), "images")
        client.set_tag(run_id, "mlflow.loggedImages", "True", synchronous=True)

    def _blob(self, client: MlflowClient, event: Event, path: str) -> Path | None:
        """The event's file; None if it is gone because it has arrived at `path`, and this is a replay."""
        file: Path = self.outbox / event["blob"] / PurePosixPath(event.get("path", "picture.png")).name
        if file.exists():
            return file
        folder = str(PurePosixPath(path).parent)
        there = client.list_artifacts(self._run_id(event["run"]), None if folder == "." else folder)
        if path not in [info.path for info in there]:
            raise Undeliverable(f"{file} is missing")
        return None

    def _recall(self) -> bool:
        """Reads the run ids of an earlier process; False if there are none, or they are another server's."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if record["store"] != redacted(self._uri):
            return False
        self.run_ids = record["runs"]
        return True

    def _note(self) -> None:
        write_text(self._record, json.dumps({"store": redacted(self._uri), "runs": self.run_ids}, indent=1))
        self._noted = len(self.run_ids)


def _name(name: str) -> str:
    """A name that MLflow takes. One that had to be changed ends in a hash, so that no two become one."""
    valid = re.sub(r"[^/\w.\- :]", "_", name)
    valid = "/".join(part if part.strip(".") else "_" for part in valid.split("/"))
    if valid == name and len(name) <= MAX_KEY:
        return name
    return f"{valid[: MAX_KEY - 7]}.{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _requests(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Cut into requests that MLflow takes, by number and by size."""
    chunk: list[Entity] = []
    size = 0
    for entity in entities:
        length = len(entity.key) + len(entity.value)
        if chunk and (len(chunk) == MAX_PARAMS or size + length > MAX_REQUEST):
            yield chunk
            chunk, size = [], 0
        chunk.append(entity)
        size += length
    if chunk:
        yield chunk


def _thumbnail(file: Path) -> Image.Image:
    """At most 256 pixels wide and high. A small picture grows by whole pixels: digits of 8 x 8 stay sharp."""
    content = io.BytesIO(file.read_bytes())
    try:
        with Image.open(content) as picture:
            image = picture.convert("RGBA" if picture.mode in ("RGBA", "LA", "PA") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Undeliverable(f"{file} is no picture: {error}") from error
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a container whose user has no name
        return {}

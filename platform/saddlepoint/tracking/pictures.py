"""Pictures and numbers that the store holds of a sweep, read back without touching the store: no database is made, no
schema is changed."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from ..errors import SaddleError
from .store import database, explained, redacted, resolve

_STEM = re.compile(r"images/(?P<name>.+)\+step\+(?P<step>\d+)\+timestamp\+\d+\+[0-9a-f-]+\.png")  # delivery._picture


@dataclass(frozen=True)
class Gallery:
    """The runs of one sweep in one store."""

    uri: str  # resolved
    runs: dict[str, str]  # key -> MLflow's run id

    @classmethod
    def of(cls, folder: Path, tracking_uri: str | None = None) -> "Gallery":
        """Of a sweep's tracking folder. Raises SaddleError if the store has not heard of the sweep."""
        uri = resolve(tracking_uri)
        try:
            record = json.loads((folder / "runs.json").read_text())
        except (FileNotFoundError, ValueError):
            raise SaddleError("nothing of this sweep has arrived in the tracking store") from None
        if record["store"] != redacted(uri):
            raise SaddleError(f"this sweep is tracked in {record['store']}, not in {redacted(uri)}")
        if (path := database(uri)) is not None and not path.exists():
            raise SaddleError(f"{path} is gone")
        return cls(uri, record["runs"])

    def metrics(self, key: str) -> dict[str, float]:
        """The last value of each metric of a run; {} for a run that the store does not have."""
        if key not in self.runs:
            return {}
        with explained(self.uri):
            return dict(self._client().get_run(self.runs[key]).data.metrics)

    def pictures(self, key: str, names: Sequence[str], at_most: int) -> dict[int, bytes]:
        """By step, the PNGs of the first of `names` that the run has; of many an even choice, both ends included."""
        if key not in self.runs:
            return {}
        with explained(self.uri), tempfile.TemporaryDirectory() as folder:
            client = self._client()
            listed = [info.path for info in client.list_artifacts(self.runs[key], "images")]
            found = [(match["name"], int(match["step"]), path) for path in listed if (match := _STEM.fullmatch(path))]
            chosen = next((name for name in names if any(name == each for each, *_ in found)), None)
            paths = {step: path for name, step, path in found if name == chosen}
            steps = evenly(sorted(paths), at_most)
            fetched = {step: client.download_artifacts(self.runs[key], paths[step], folder) for step in steps}
            return {step: Path(path).read_bytes() for step, path in fetched.items()}

    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


def evenly(steps: Sequence[int], at_most: int) -> list[int]:
    """At most so many (two or more) of the steps, as even as can be, both ends included."""
    if len(steps) <= at_most:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(part * last / (at_most - 1))] for part in range(at_most)]

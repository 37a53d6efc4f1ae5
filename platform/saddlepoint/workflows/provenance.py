"""Which code and which machine made a run: what a reader needs to make it again."""

import os
import platform
import subprocess
from importlib.metadata import version

from .. import __version__
from ..spec import Pipeline
from ..training.setup import Setup


def git_commit() -> str:
    """The commit of the working folder, `-dirty` if something is uncommitted; "none" outside a checkout. A job of a
    cluster, whose folder is none, has it from its submitter: SADDLE_COMMIT."""
    if told := os.environ.get("SADDLE_COMMIT"):
        return told

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "none"
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def provenance() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "ray", "optuna", "mlflow")}
    return {
        "saddle.version": __version__,
        "saddle.commit": git_commit(),
        "saddle.python": platform.python_version(),
        "saddle.packages": " ".join(f"{name}=={number}" for name, number in packages.items()),
    }


def protocol_tags(shared: Setup) -> dict[str, str]:
    """Under which data, n and extractor a score was taken: only scores with equal ones may be compared."""
    return {f"saddle.protocol.{name}": str(value) for name, value in shared.scorer.protocol.items()}


def run_tags(pipeline: Pipeline, shared: Setup) -> dict[str, str]:
    metric = pipeline.objective.metric
    floor = {f"saddle.floor.{name}": f"{value:.4g}" for name, value in shared.scorer.floor([metric]).items()}
    return {**provenance(), **protocol_tags(shared), **floor}

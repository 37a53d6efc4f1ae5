"""The command line that shows what is tracked."""

import os
import sys

from ..errors import UserError
from .store import connect, database, redacted, resolve


def command(tracking_uri: str | None, port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """MLflow's UI on this machine alone: the arguments and the environment of the process to start.

    Raises:
        UserError: the tracking URI is that of a server, which shows itself.
    """
    uri = resolve(tracking_uri)
    if uri.startswith(("http:", "https:", "databricks")):
        raise UserError(f"tracking URI: {redacted(uri)} is a server with a page of its own; open it in a browser")
    arguments = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    if (path := database(uri)) is not None:
        connect(uri)  # makes the database, so that a UI opened first shows an empty one
        arguments += ["--default-artifact-root", (path.parent / "mlruns").as_uri()]
    # without job execution (of MLflow's evaluations of language models) it takes 0.4 instead of 1.8 GB
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return [*arguments, "--port", str(port), "--workers", "1"], environment

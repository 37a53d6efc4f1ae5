"""Ray, started here and quietly, or the cluster that RAY_ADDRESS names."""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from saddlepoint.errors import SaddleError, UserError

_OBJECT_STORE = 200 * 2**20  # bytes; reports are small, and the store is taken from shared memory at once


def start(*, cpus: int | None = None, log: Path) -> None:
    """Connects to the cluster at RAY_ADDRESS, else starts Ray here, with `cpus` CPUs (None: all there are).

    Ray's own messages go to the file `log`; nothing goes to the terminal or to Ray's makers. Does nothing if
    Ray runs already. Raises UserError if no cluster answers at RAY_ADDRESS.
    """
    redirect(log)
    if ray.is_initialized():
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Tune's workers want an environment of their own: idle ones, started ahead, would only cost time.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address or "local"}
    if not address:
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    elif address != "auto":
        _check(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes to come in Ray's API
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
        except ConnectionError as error:
            raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {_line(error)}") from None
        except Exception as error:  # a bare one, if a process of its own dies while it starts
            raise SaddleError(f"Ray did not start: {_line(error)}; see {log}") from error


def stop() -> None:
    """Ends the local Ray, or leaves the cluster."""
    ray.shutdown()


@contextmanager
def running(*, cpus: int | None = None, log: Path) -> Iterator[None]:
    """`start`, and `stop` at the end, unless Ray was already running before."""
    before = ray.is_initialized()
    start(cpus=cpus, log=log)
    try:
        yield
    finally:
        if not before:
            stop()


def redirect(log: Path) -> None:
    """Lets Ray's and Tune's loggers write to the file `log` and nowhere else."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("ray")
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.propagate = False
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses Tune's result files, which we forgo
    # What Ray has to say of lost workers it prints, and has no switch for that.
    ray._private.worker.print_to_stdstream = lambda data, **_: logger.warning("\n".join(data["lines"]))


def _check(address: str) -> None:
    """Ray itself would wait for minutes for a cluster that is not there."""
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdigit():
        raise UserError(f"RAY_ADDRESS: {address!r} should be HOST:PORT of a cluster's head, as seen from inside")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {reason}") from None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""Ray, started here and quietly, or the cluster that RAY_ADDRESS names."""

import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import ray
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]  # compiled
from ray.exceptions import AuthenticationError, RayError

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.scaling.watch import watching_it_end, watching_it_start

GREETING = 5.0  # seconds that a head may take to answer at all
_OBJECT_STORE = 200 * 2**20  # bytes; reports are small, and the store is taken from shared memory at once


def start(*, cpus: int | None = None, log: Path) -> None:
    """Connects to the cluster at RAY_ADDRESS, else starts Ray here, with `cpus` CPUs (None: all there are).

    Ray's own messages go to the file `log`; nothing goes to the terminal or to Ray's makers. Does nothing if
    Ray runs already. Raises UserError if no cluster answers at RAY_ADDRESS, or none that takes our token.
    """
    redirect(log)
    if ray.is_initialized():
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else Ray lets a job that asks for no GPU see all of them, and nobody counts it there.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Tune's workers want an environment of their own: idle ones, started ahead, would only cost time.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address or "local"}
    if not address:
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    elif address != "auto":
        check(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes to come in Ray's API
        try:
            with nullcontext() if address else watching_it_start():
                ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
                _ours.set()
        except ConnectionError as error:
            raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {_line(error)}") from None
        except Exception as error:  # a bare one, if a process of its own dies while it starts
            raise SaddleError(f"Ray did not start: {_line(error)}; see {log}") from error


_ours = threading.Event()  # it was started, or joined, here
_before_leaving: list[Callable[[], None]] = []


def before_leaving(do: Callable[[], None]) -> Callable[[], None]:
    """Lets `do` be called before Ray is stopped, or given back to whoever has started it and may stop it any time."""
    _before_leaving.append(do)
    return do


def _leave() -> None:
    for do in _before_leaving:
        do()


def elsewhere() -> bool:
    """Whether Ray runs on other machines, too."""
    return bool(os.environ.get("RAY_ADDRESS"))


def stop(at_rest: Callable[[], None] = lambda: None) -> None:
    """Ends the local Ray, or leaves the cluster. If a head process of the local one has died before that, this process
    ends after `at_rest`: Ray would wait for it for a minute."""
    with watching_it_end(at_rest):
        _leave()
        _ours.clear()
        ray.shutdown()


@contextmanager
def running(*, cpus: int | None = None, log: Path, at_rest: Callable[[], None] = lambda: None) -> Iterator[None]:
    """`start`, and `stop` at the end, unless Ray was already running before."""
    before = ray.is_initialized()
    start(cpus=cpus, log=log)
    try:
        yield
    finally:
        if not before:
            stop(at_rest)
        elif not _ours.is_set():
            _leave()


def redirect(log: Path) -> None:
    """Lets Ray's and Tune's loggers write to the file `log`, made with its folder at the first word, and nowhere
    else."""
    handler = _Log(log, delay=True)
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


class _Log(logging.FileHandler):
    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


def check(address: str) -> None:
    """Raises UserError if no cluster answers at HOST:PORT, or none that takes our token: Ray itself would try for
    minutes, or fill the terminal with a line a second.

    A cluster that asks for a token gets it, though RAY_AUTH_MODE is not set; Ray would have none for an address that
    is given.
    """
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdigit():
        raise UserError(f"RAY_ADDRESS: {address!r} should be HOST:PORT of a cluster's head, as seen from inside")
    try:
        with socket.create_connection((host, int(port)), timeout=GREETING) as connection:
            stranger = not _encrypted() and not _greets(connection)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {reason}") from None
    if stranger:
        raise UserError(
            f"RAY_ADDRESS: what listens at {address!r} is no Ray cluster; its head listens at port 6379 by default"
        )
    ours = token()
    if _welcome(address):
        return
    if ours is None:
        raise UserError(f"RAY_ADDRESS: the cluster at {address!r} asks for a token: {SET_A_TOKEN}")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")  # Ray read the environment when it was imported
        AuthenticationTokenLoader.instance().reset_cache()
        if _welcome(address):
            return
    raise UserError(f"{ours.source}: the cluster at {address!r} takes another token; {TAKES_ANOTHER}")


def _encrypted() -> bool:
    """Whether Ray talks TLS, in which the first words are others."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _greets(connection: socket.socket) -> bool:
    """Whether it is gRPC that answers there, as Ray's head does: HTTP/2, in which both sides begin with a frame of
    settings (RFC 9113, 3.4). Of anything else Ray would hope for 40 s that it is one after all."""
    settings = 4  # the kind of a frame: its fourth byte
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, settings, 0, 0, 0, 0, 0]))
    with connection.makefile("rb") as answer:
        return answer.read(4)[3:] == bytes([settings])


def _welcome(address: str) -> bool:
    """Whether the cluster talks to us. What Ray's C++ says of it on stderr is not for a person."""
    sys.stderr.flush()
    with open(os.devnull, "w") as nothing:
        kept = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            GcsClient(address=address)
        except AuthenticationError:
            return False
        except RayError as error:
            raise UserError(f"RAY_ADDRESS: no Ray cluster answers at {address!r}: {_line(error)}") from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    return True


SET_A_TOKEN = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"
TAKES_ANOTHER = "set the one that it was started with"


@dataclass(frozen=True)
class Token:
    secret: str = field(repr=False)
    source: str  # what to change if it is the wrong one


def token() -> Token | None:
    """The token for clusters, where Ray itself looks for it: RAY_AUTH_TOKEN, else the file that RAY_AUTH_TOKEN_PATH
    names, else ~/.ray/auth_token; None with RAY_AUTH_MODE=disabled.

    Raises UserError if that file cannot be read, or if what is there cannot be a token: whoever sent it on would say
    so with its text.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    source, secret = "RAY_AUTH_TOKEN", os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not secret:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
        source = "RAY_AUTH_TOKEN_PATH" if named else str(path)
        try:
            secret = path.read_text("latin-1").strip()
        except OSError as error:
            if not named:
                return None
            raise UserError(f"RAY_AUTH_TOKEN_PATH: {named!r} cannot be read: {error.strerror}") from None
    if not (secret.isascii() and secret.isprintable()):  # "" is both
        raise UserError(f"{source}: holds no token, which is one line of letters, digits and signs of ASCII")
    return Token(secret, source) if secret else None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

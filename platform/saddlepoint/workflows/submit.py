"""A pipeline that ran here, to a Ray cluster, unchanged: what travels with it, and what cannot.

The job's working folder holds the resolved pipeline, this package, and the user's own modules. All that a run leaves is
on the storage, a folder that every node sees, or the head alone if what the nodes write lies in a bucket: the same
command submitted again goes on there.
"""

import ipaddress
import os
import re
import secrets
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .. import __version__
from ..errors import UserError
from ..files import write_text
from ..imports import resolve
from ..remote import Remote, place
from ..scaling.submission import Jobs, checked_address
from ..spec import Pipeline
from ..tracking import store
from .disk import size
from .folder import CHECKPOINTS, STORAGE
from .provenance import git_commit
from .sweep import searched

COMMAND = "exec python -m saddlepoint run pipeline.yaml"  # exec: the signal that stops the job reaches it, and it alone
MOST = 100  # MB of a user's package; Ray itself refuses 500, late and at length
TRAVELS = re.compile(
    r"MLFLOW_TRACKING_(URI|TOKEN|USERNAME|PASSWORD|INSECURE_TLS)|MLFLOW_S3_(ENDPOINT_URL|IGNORE_TLS)"
    r"|AWS_(?!PROFILE$|CA_BUNDLE$)\w+(?<!_FILE)|PGUSER|PGPASSWORD"
)
ENDPOINTS = re.compile(r"MLFLOW_S3_ENDPOINT_URL|AWS_ENDPOINT_URL\w*")


@dataclass(frozen=True)
class Submission:
    job: str
    address: str
    sweep: str  # the folder, as the cluster sees it
    tracking: str


def submit(
    pipeline: Pipeline,
    address: str | None = None,
    *,
    storage: str | None = None,
    checkpoints: str | None = None,
    pip: Sequence[str] = (),
) -> Submission:
    """Starts `saddle run` of the pipeline as a job of the cluster.

    address: of its dashboard. storage: an absolute path, as its nodes see it (None: $SADDLE_STORAGE). checkpoints: the
    URI of a place in which all nodes read and write (None: $SADDLE_CHECKPOINTS); with it the storage may be the head's
    alone. pip: what the nodes are to install for this job.

    Raises:
        UserError: the cluster could not run it: a file of this machine is part of it, there is no storage, a module
            is missing; nobody answers at the address, or not to our token.
        SaddleError: the cluster refuses the job.
    """
    searched(pipeline)
    address = checked_address(address)
    head = urlsplit(address).hostname or ""
    apart = checkpoints_place(checkpoints, head)
    folder = storage_folder(storage, shared=apart is None)
    uri = portable(pipeline, folder, head, shared=apart is None)
    job = f"{pipeline.name}-{secrets.token_hex(3)}"
    sweep, tracking = folder / "sweeps" / pipeline.name, store.redacted(uri)
    notes = {"sweep": str(sweep), "tracking": tracking, "saddlepoint": __version__}
    with tempfile.TemporaryDirectory(prefix="saddle-") as packed:
        pack(pipeline, Path(packed))
        Jobs(address).submit(
            job, COMMAND, folder=Path(packed), environment=environment(uri, folder, apart), pip=pip, notes=notes
        )
    return Submission(job, address, str(sweep), tracking)


def storage_folder(storage: str | None, *, shared: bool = True) -> Path:
    """shared: whether all nodes must see it, and not the head alone."""
    key, given = ("--storage", storage) if storage else (STORAGE, os.environ.get(STORAGE))
    if not given:
        seen = "that every node of the cluster sees" if shared else "of the cluster's head that outlives the job"
        raise UserError(
            f"--storage: is missing; give a folder {seen}, or set {STORAGE}: "
            "the sweep lies there, and the working folder of a job is thrown away"
        )
    if not Path(given).is_absolute():
        raise UserError(f"{key}: {given!r} should be an absolute path, as the nodes of the cluster see it")
    return Path(given)


def checkpoints_place(given: str | None, head: str) -> Remote | None:
    """What is given, or set; None if neither. Raises UserError for what no other node could reach."""
    key, text = ("--checkpoints", given) if given else (CHECKPOINTS, os.environ.get(CHECKPOINTS))
    if not text:
        return None
    found = place(text, key)
    if isinstance(found, Path):
        raise UserError(
            f"{key}: {text!r} is a folder; give a place that every node reaches, s3://BUCKET/PREFIX, or leave it out: "
            "the checkpoints then lie on the storage, a folder that every node sees"
        )
    try:
        with suppress(OSError):  # the nodes may reach what this machine does not
            _ = found.filesystem
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    parts = urlsplit(text)
    endpoint = dict(parse_qsl(parts.query)).get("endpoint_override", parts.netloc)
    _seen(key, f"{parts.scheme}://{endpoint.rpartition('://')[2]}", head)
    return found


def environment(uri: str, storage: Path, checkpoints: Remote | None = None) -> dict[str, str]:
    """What the job finds set: where everything lies, and the caller's own access to the tracking store and to S3.

    The cache lies where all nodes find it, too: the classifier behind a score is trained once, and is the same on each.
    """
    own = {name: value for name, value in os.environ.items() if TRAVELS.fullmatch(name)}
    apart = {} if checkpoints is None else {CHECKPOINTS: str(checkpoints)}
    return {
        **own,
        **apart,
        "MLFLOW_TRACKING_URI": uri,
        STORAGE: str(storage),
        "SADDLE_CACHE": str((checkpoints or storage) / "cache"),
        "SADDLE_COMMIT": git_commit(),
        "SADDLE_PROGRESS": "lines",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asks for no GPU sees none
    }


def portable(pipeline: Pipeline, storage: Path, head: str, *, shared: bool = True) -> str:
    """The tracking URI, if nothing that the run needs is a file, or a server, that this machine alone can see.

    head: the host of the cluster's address; through a loopback one a cluster on this machine is reached.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "MLFLOW_TRACKING_URI: is not set, which means mlflow.db in a folder of this machine; "
            "set it to the tracking server of the cluster, http://HOST:PORT"
        )
    uri = store.resolve(None)
    if store.database(uri) is not None:
        raise UserError(
            f"MLFLOW_TRACKING_URI: {uri!r} is a file of this machine, which the cluster does not see; "
            "set it to a tracking server, http://HOST:PORT"
        )
    servers = {"MLFLOW_TRACKING_URI": uri, "search.ledger": _ledger(pipeline, storage)}
    servers |= {name: value for name, value in os.environ.items() if ENDPOINTS.fullmatch(name)}
    for key, server in servers.items():
        _seen(key, server, head)
    for key, path in _paths(pipeline):
        if not path.is_relative_to(storage) and (not path.is_absolute() or path.exists()):
            seen = f"the storage, {storage}" if shared else "a bucket, or to the same place on every node"
            raise UserError(
                f"{key}: {str(path)!r} is on this machine, and the cluster does not see it; "
                f"copy it to {seen}, and give that path"
            )
    return uri


def _seen(key: str, server: str, head: str) -> None:
    """Raises UserError for a server that is this machine's alone, unless the cluster is on it, too."""
    parts = _split(key, server)
    host = parts.hostname or dict(parse_qsl(parts.query)).get("host", "")
    socket = bool(re.match(r"postgres|mysql|mariadb", parts.scheme)) and (not host or host.startswith("/"))
    if (socket or loopback(host)) and not loopback(head):
        raise UserError(
            f"{key}: {store.redacted(server)!r} is this machine alone; "
            f"name the server as the cluster's nodes see it, not as {'a socket' if socket else host}"
        )


def _split(key: str, url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UserError(f"{key}: {store.redacted(url)!r} names no server: {error}") from None


def _ledger(pipeline: Pipeline, storage: Path) -> str:
    """The ledger's server; "" if it is the file in the sweep's folder, or another on the storage."""
    url = (pipeline.search and pipeline.search.ledger) or ""
    if re.match(r"sqlite\b", url):
        path = Path(url.partition("///")[2].partition("?")[0])
        if path.is_absolute() and path.is_relative_to(storage):
            return ""
        raise UserError(
            f"search.ledger: {url!r} is a file of this machine; leave it out, and the ledger lies in the sweep's "
            "folder on the storage, or name a server: postgresql+psycopg2://USER@HOST/NAME"
        )
    if _split("search.ledger", url).password:
        raise UserError(
            f"search.ledger: {store.redacted(url)!r} has a password in it, which would stand in the sweep's files; "
            "leave it out of the URL and set PGPASSWORD, which goes with the job"
        )
    return url


def loopback(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
        return found.is_loopback or found.is_unspecified  # 0.0.0.0: as a destination, this machine
    except ValueError:
        return host == "localhost"


def _paths(pipeline: Pipeline) -> Iterator[tuple[str, Path]]:
    """What the data and the score are read from, as far as it is a file system's path and no URI."""
    for key, value in pipeline.flat().items():
        leaf = key.rpartition(".")[2]
        if not isinstance(value, str) or not (key == "objective.feature_weights" or key.startswith("data.")):
            continue
        scheme, _, rest = value.rpartition("://")
        path = Path(rest).expanduser()
        if leaf != "name" and scheme in ("", "file") and ("/" in rest or path.exists()):
            yield key, path


def pack(pipeline: Pipeline, folder: Path) -> None:
    """Puts into the folder all that the job works with. Raises UserError if a package is too large to be code."""
    write_text(folder / "pipeline.yaml", pipeline.yaml())
    for source in [Path(__file__).parents[1], *own_modules(pipeline)]:
        if (megabytes := size(source) / 1e6) > MOST:
            raise UserError(
                f"{source}: goes with the pipeline, and holds {megabytes:,.0f} MB; "
                f"at most {MOST} can be sent, so keep data elsewhere"
            )
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, folder)


def own_modules(pipeline: Pipeline) -> list[Path]:
    """The files, or package folders, of the user's modules to which the pipeline refers, and of those that lie beside
    them and were imported by them. What is installed is not among them: the cluster has it installed too, or `--pip`.

    Raises UserError if one of them cannot be imported here.
    """
    names = set()
    for key, path in _import_paths(pipeline):
        resolve(key, path)
        names.add(path.partition(":")[0].partition(".")[0])
    found = {source for name in names if (source := _source(name)) is not None}
    beside = {source.parent for source in found}
    for name in {name.partition(".")[0] for name in list(sys.modules)}:
        if (source := _source(name)) is not None and source.parent in beside:
            found.add(source)
    return sorted(found)


def _import_paths(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Key and value wherever the pipeline, or its search space, names something by its import path."""
    for key, value in pipeline.flat().items():
        section, _, leaf = key.rpartition(".")
        if key.startswith("search.space.parameters."):
            section = section.rpartition(".")[2]  # of "networks.critic.factory.choices": the parameter's last part
            leaf = section if leaf in ("choices", "value", "default") else ""
        if leaf in ("factory", "name") and key not in ("name", "search.space.game"):
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and ":" in text:
                    yield key, text


def _source(name: str) -> Path | None:
    """The file or folder of a top-level module that is neither installed nor this package; else None."""
    if name in ("saddlepoint", "__main__", "__mp_main__"):
        return None
    try:
        spec = find_spec(name)
    except (ValueError, ImportError):  # a module that was made by hand
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    source = Path(places[0] if places else spec.origin or "")
    installed = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return source if source.exists() and source.is_absolute() and not installed & set(source.parents) else None

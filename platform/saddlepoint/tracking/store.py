"""Where tracking goes: URIs, the database of a folder, connections, and in words what is wrong with them."""

import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from ..errors import SaddleError, UserError, unknown

for _name, _level in {
    "mlflow": logging.ERROR,
    "mlflow.store.db.utils": logging.CRITICAL,  # prints a traceback for every busy database
    "alembic": logging.ERROR,
    "urllib3.connectionpool": logging.ERROR,  # warns of every retry
}.items():
    logging.getLogger(_name).setLevel(_level)

SWEEP_TAG, KEY_TAG, PARENT_TAG = "saddle.sweep", "saddle.key", "mlflow.parentRunId"
DEFAULT_URI = "sqlite:///mlflow.db"  # where `mlflow ui` looks by itself
Entity = TypeVar("Entity")
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("postgresql", "mysql", "mssql")


def resolve(uri: str | None) -> str:
    """The tracking URI: as given, else $MLFLOW_TRACKING_URI, else the database of the working folder.

    A relative SQLite path becomes absolute, so that the URI means the same in every process.

    Raises:
        UserError: a folder (MLflow no longer opens those, and a repeated point would stand there twice), a
            database in memory, or nothing that MLflow can open.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = re.split(r"[:+]", uri)[0] if ":" in uri else ""
    if scheme == "sqlite":
        path = make_url(uri).database
        if not path or path == ":memory:":
            raise UserError(f"tracking URI: {uri!r} names no file; write it as sqlite:///mlflow.db")
        return sqlite_uri(Path(path))
    if scheme in ("http", "https") and not _host(uri):
        raise UserError(f"tracking URI: {uri!r} names no server; write it as http://HOST:PORT")
    if scheme in ("", "file") and uri != "databricks":
        raise UserError(f"tracking URI: {uri!r} is a path; write it as sqlite:///mlflow.db or http://HOST:PORT")
    if scheme not in ("", *_SERVERS, *_DATABASES):
        raise unknown("tracking URI", uri, ["sqlite", *_SERVERS, *_DATABASES])
    return uri


def _host(uri: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError:  # a bracket that does not close
        return None


def sqlite_uri(path: Path) -> str:
    escaped = os.path.abspath(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{escaped}"


def database(uri: str) -> Path | None:
    """The SQLite file of a resolved URI; None for a server."""
    return Path(str(make_url(uri).database)) if uri.startswith("sqlite:") else None


def redacted(uri: str) -> str:
    """Without a user's name and password: for messages and files."""
    return re.sub(r"//[^/@\s]*@", "//", uri)


def connect(uri: str) -> MlflowClient:
    """A client for a resolved URI. A missing local database is made; a server is not asked anything yet.

    Raises:
        UserError: the local database cannot be made, written or read.
    """
    if (path := database(uri)) is not None:
        _prepare(path)
    with explained(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


TRAINING = {
    "mlflow.experimentKind": "custom_model_development"
}  # the UI opens on runs, not on traces of language models


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Gets or makes the experiment; artifacts lie beside a local database, whatever the working folder is.

    Raises:
        UserError: the experiment was deleted, which MLflow only half forgets: its name stays taken.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        path = database(uri)
        place = _artifacts(path) + "/" + re.sub(r"[^\w.-]+", "-", name) if path else None
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=TRAINING))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"experiment: {name!r} was deleted in MLflow; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}` or choose another name"
        )
    return str(experiment.experiment_id)


def search(client: MlflowClient, experiments: list[str], query: str) -> Iterator[Run]:
    """All runs that the filter `query` finds, the youngest first."""
    if experiments:
        yield from pages(lambda token: client.search_runs(experiments, query, max_results=1000, page_token=token))


def pages(ask: Callable[[str | None], "PagedList[Entity]"]) -> Iterator[Entity]:
    """All entities of a question that MLflow answers page by page."""
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        if not (token := page.token):
            return


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """What MLflow or the database raises in this block becomes a SaddleError of one sentence."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = redacted(" ".join(str(error).split()))
        if "out-of-date database schema" in text:
            hint = f"run `mlflow db upgrade {redacted(uri)}`"
            raise UserError(f"tracking store: written by an older MLflow; {hint}") from error
        raise SaddleError(f"tracking store {redacted(uri)} fails: {text[:300]}") from error


def _artifacts(path: Path) -> str:
    return (path.parent / "mlruns").as_uri()


def _prepare(path: Path) -> None:
    """Makes the database if there is none; finds out whether it can be written."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"folder {path.parent} is read-only")
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except (OSError, sqlite3.DatabaseError) as error:
        if "database is locked" not in str(error):  # locked: another process is writing, which is well
            raise UserError(f"tracking store: {path}: {error}") from error


def _create(path: Path) -> None:
    """MLflow's fifty migrations run on a file aside, which then gets its name: another process, or one after
    a crash, finds a whole database or none."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        fresh = Path(folder) / path.name
        try:
            store = SqlAlchemyStore(sqlite_uri(fresh), _artifacts(path))  # type: ignore[no-untyped-call]
            store.engine.dispose()
        except (MlflowException, SQLAlchemyError) as error:
            raise OSError(" ".join(str(error).split())) from error
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # another process was faster
        except OSError:  # a file system without hard links
            fresh.replace(path)

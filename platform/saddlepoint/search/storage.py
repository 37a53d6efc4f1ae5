"""The database under the ledger: SQLite in a file, or any server that SQLAlchemy has a driver for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, RDBStorage, get_storage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from saddlepoint.errors import SaddleError, UserError
from saddlepoint.search.remembered import Remembered


def open_storage(url: str | None) -> Remembered:
    """The storage at `url` (None: in memory), created if need be. Raises UserError if it cannot be opened."""
    if url is None:
        return Remembered(InMemoryStorage())
    try:
        sqlite = make_url(url).get_backend_name() == "sqlite"
        # SQLite: wait for another process that is writing. Servers: they drop connections that were long
        # idle.
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
        storage = RDBStorage(url, engine_kwargs=options)
        if sqlite:
            with storage.engine.connect() as connection:
                # Readers no longer wait for the writer, nor it for them; kept in the file from now on.
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    except ImportError as error:
        raise UserError(
            f"ledger: {without_password(url)} needs a driver that is not installed ({error.name}); for PostgreSQL: "
            "pip install 'saddlepoint[postgres]', and postgresql+psycopg2://USER@HOST/NAME"
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise UserError(
            f"ledger: {without_password(url)} cannot be opened: {_reason(error)}; "
            "right are sqlite:///FILE or a server's URL such as postgresql+psycopg2://USER@HOST/NAME, "
            "of a database that no other program keeps its tables in"
        ) from None
    return Remembered(get_storage(storage))


@contextmanager
def spoken(name: str) -> Iterator[None]:
    """Turns the errors of the storage `name` into a SaddleError of one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise SaddleError(f"ledger: {name}: {_reason(error)}") from error


def without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url)


def _reason(error: BaseException) -> str:
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return str(error).strip().splitlines()[0].rstrip(".")

"""The database in which a study is kept: SQLite in its folder, or one that several machines share."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from convscope.base.optional import import_optional
from convscope.errors import FailedError, SettingError

_TRIES = 5
_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)  # of a database


def check_file(path: Path) -> None:
    """Refuses a file in the place of the store that is another program's, before tables are made in it.

    Raises:
        SettingError: it is one.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:  # another process holds it; who opens it next waits
        return
    except sqlite3.DatabaseError as error:
        raise SettingError(f"{path}: is no database ({error}); move it away, or choose another --out") from None
    if tables and "studies" not in tables:
        raise SettingError(f"{path}: is a database of another program; move it away, or choose another --out")


def connect(url: str) -> RDBStorage:
    """The database; its errors in one line, without the password."""
    full = _with_driver(url).replace("{", "{{").replace("}", "}}")  # Optuna fills in names between braces
    is_file = full.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    for attempt in range(1, _TRIES + 1):
        try:
            storage = RDBStorage(full, engine_kwargs=options)
            break
        except (*_ERRORS, RuntimeError, ValueError, ImportError) as error:
            # two who make the tables at the same moment: the second finds them on its next try
            if attempt == _TRIES or not isinstance(error, _ERRORS):
                reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())[:300]
                reason = reason.replace(full, _masked(full)).replace(url, _masked(url))
                raise FailedError(f"the store of the study cannot be used: {reason}; check --storage") from None
            time.sleep(0.2)
    if is_file:
        _claim_at_once(storage.engine)
    return storage


@contextmanager
def database_errors_in_one_line() -> Iterator[None]:
    """Turns what a database cannot do, such as to write on a full disk, into a FailedError."""
    try:
        yield
    except _ERRORS as error:
        reason = str(error.__cause__ or error).split("\n")[0][:300]
        raise FailedError(
            f"the store of the study cannot be used: {reason}; free space, or check --storage, and give the same command again"
        ) from None


def _masked(url: str) -> str:
    """An address without what stands before its host: a user's name and password."""
    return re.sub(r"^(.*?://)?.*@", r"\1…@", url)


def _with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise SettingError(f"--storage {_masked(url)}: expected an address such as postgresql://user@host/database")
    if scheme not in ("postgresql", "postgres"):
        return url
    import_optional("psycopg", "--storage postgresql://…", "postgres")
    return f"postgresql+psycopg://{rest}"


def _claim_at_once(engine: Engine) -> None:
    """SQLite would lock at the first write: two could read that a trial waits, and both take it. Here it locks at the start."""

    @event.listens_for(engine, "connect")
    def _no_begin_of_its_own(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # of connections made before


def write_ahead(engine: Engine) -> None:
    """SQLite writes to a log beside the file, in a third of the time; for a process that has the study for itself."""

    @event.listens_for(engine, "connect")
    def _set(connection: Any, record: Any) -> None:
        with suppress(sqlite3.OperationalError):  # a file system without shared memory: it stays as it is
            connection.execute("PRAGMA journal_mode=WAL")


def close_log(path: Path) -> None:
    """One file again, which others may copy, or read where nothing can be written."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing by itself; it is we who speak to the user."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield

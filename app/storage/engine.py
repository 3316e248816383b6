"""Database URLs and engines: SQLite in WAL through aiosqlite, PostgreSQL through psycopg."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from moe_router.errors import ConfigError

SQLITE, POSTGRESQL = "sqlite", "postgresql"
BEGIN = "mole_begin"
"""Execution option: how SQLite begins a transaction."""
BUSY_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
"""How long a migration waits for another process's, or for a table: shorter than requests wait for it."""
LIVENESS = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""libpq's: a PostgreSQL server that has gone without a word is noticed after some ten seconds, not hours."""
POOL_SIZE = 5
NAME = "DATABASE_URL"

_ALIASES = {
    "sqlite": SQLITE, "sqlite+aiosqlite": SQLITE, "sqlite+pysqlite": SQLITE,
    "postgres": POSTGRESQL, "postgresql": POSTGRESQL, "postgresql+psycopg": POSTGRESQL,
}  # fmt: skip


def read_url(given: str) -> URL:
    """The URL without a driver: `sqlite:///…` or `postgresql://…`.

    Raises:
        ConfigError: it is no URL, of another database, or SQLite without a file. The message never
            holds the URL, which may hold a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(NAME, "URL", "is no database URL") from error
    kind = _ALIASES.get(url.drivername)
    if kind is None:
        raise ConfigError(NAME, "scheme", f"is {url.drivername!r}; known are sqlite:/// and postgresql://")
    url = url.set(drivername=kind)
    if kind == SQLITE and url.database in (None, "", ":memory:"):
        raise ConfigError(NAME, "path", "names no file: a database in memory would not outlive the process")
    return url


def async_engine(url: URL) -> AsyncEngine:
    """The engine that the service uses; connects at the first use.

    Raises:
        ConfigError: the driver is not installed.
    """
    driver = "sqlite+aiosqlite" if url.drivername == SQLITE else "postgresql+psycopg"
    try:
        engine = create_async_engine(url.set(drivername=driver), **_options(url))
    except ModuleNotFoundError as error:
        raise ConfigError(
            NAME, "scheme", f"needs {error.name}: pip install 'mole-router[postgres]'"
        ) from error
    _prepare(engine.sync_engine, url)
    return engine


def blocking_engine(url: URL) -> Engine:
    """The engine of migrations, which run in a thread of their own."""
    driver = "sqlite+pysqlite" if url.drivername == SQLITE else "postgresql+psycopg"
    options = {**_options(url), "pool_size": 1}
    engine = create_engine(url.set(drivername=driver), **options)
    _prepare(engine, url)
    return engine


def _options(url: URL) -> dict[str, Any]:
    common: dict[str, Any] = {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_SIZE,
        "pool_timeout": BUSY_TIMEOUT_S,
        "json_serializer": _to_json,
        "json_deserializer": orjson.loads,
        "hide_parameters": True,  # callers' texts: an exception's message may reach the log
    }
    if url.drivername == SQLITE:
        # A connection's page cache is void once another has written: the one used last still has its own.
        return {**common, "pool_use_lifo": True, "connect_args": {"timeout": BUSY_TIMEOUT_S}}
    # A connection that the server closed, as at its restart, is noticed before it is used.
    connect = {"connect_timeout": CONNECT_TIMEOUT_S, **LIVENESS}
    return {**common, "pool_pre_ping": True, "connect_args": connect}


def _to_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _prepare(engine: Engine, url: URL) -> None:
    if url.drivername != SQLITE:
        return

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes too late, and not before DDL: SQLAlchemy's docs on pysqlite.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys=ON")
            # With WAL the default NORMAL may lose the last commits at a power cut.
            cursor.execute("PRAGMA synchronous=FULL")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A writer takes the lock at once: a reader that turns writer cannot wait for it, only fail.
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))

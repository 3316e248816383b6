"""Brings the database to the newest schema; several processes may start at once."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, inspect, text

from app.storage.engine import BEGIN, BUSY_TIMEOUT_S, LOCK_TIMEOUT_S, SQLITE, blocking_engine
from app.storage.migrations import HEAD

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "migrations"
LOCK_KEY = 0x4D6F4C45
"""Of PostgreSQL's advisory lock; the letters MoLE."""


def migrate(url: URL) -> None:
    """Runs what is missing, each start in one transaction. Blocking.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be reached or written.
        alembic.util.CommandError: its schema is newer than this code.
    """
    if url.drivername == SQLITE:
        Path(str(url.database)).parent.mkdir(0o700, parents=True, exist_ok=True)
    engine = blocking_engine(url)
    try:
        if url.drivername == SQLITE:
            _use_wal(engine)
        with (
            engine.connect().execution_options(**{BEGIN: "BEGIN IMMEDIATE"}) as connection,
            connection.begin(),
        ):
            if url.drivername != SQLITE:
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            if revision(connection) != HEAD:
                _upgrade(connection)
    finally:
        engine.dispose()


def revision(connection: Connection) -> str | None:
    """The revision that the database is at; None where it is blank."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _use_wal(engine: Engine) -> None:
    """Lets readers and a writer work at once; the file remembers it."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:  # SQLite does not wait for others here by itself
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
    finally:
        connection.close()


def _upgrade(connection: Connection) -> None:
    from alembic import command  # 0.2 s that only the first start pays
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    logger.info("the database is at revision %s", HEAD)

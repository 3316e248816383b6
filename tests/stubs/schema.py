"""What tests ask of a database's schema, whichever database it is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL

from app.storage.engine import blocking_engine
from app.storage.migrate import revision
from app.storage.models import Base

STARTER = "import sys; from app.storage.engine import read_url; from app.storage.migrate import migrate; "


def differences(url: URL) -> list[Any]:
    """Between the models and the database as it is."""
    engine = blocking_engine(url)
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            context = MigrationContext.configure(connection, opts=options)
            return list(compare_metadata(context, Base.metadata))
    finally:
        engine.dispose()


def revision_of(url: URL) -> str | None:
    engine = blocking_engine(url)
    try:
        with engine.connect() as connection:
            return revision(connection)
    finally:
        engine.dispose()


def migrate_in_processes(url: str, count: int) -> list[str]:
    """Starts `count` processes that migrate at once; returns what those that failed said."""
    # Each waits for its standard input to close, so that all begin together.
    code = STARTER + "sys.stdin.read(); migrate(read_url(sys.argv[1]))"
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    complaints = [process.communicate()[1] for process in started]
    return [said for process, said in zip(started, complaints, strict=True) if process.returncode]

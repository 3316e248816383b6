"""Databases for these tests: each runs on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.storage.database import Database
from tests.stubs import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.PostgresServer]:
    folder = postgres.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    found = postgres.PostgresServer(folder)
    yield found
    found.remove()


@pytest.fixture
def postgres_url(server: postgres.PostgresServer) -> str:
    """A blank database."""
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A blank database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/x.sqlite3"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    found = Database(url)
    yield found
    await found.aclose()

"""Processes and databases for jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stubs import postgres
from tests.stubs.processes import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    found.stop()


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


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often a coordinator is killed in the middle of a job; 10 with --full."""
    usual = 10 if request.config.getoption("--full", default=False) else 3
    return int(os.environ.get("JOB_KILLS", usual))

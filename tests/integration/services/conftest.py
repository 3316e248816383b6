"""Stages of real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stubs.processes import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """For one test."""
    yield from _staged(tmp_path)


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """For the tests of one file."""
    yield from _staged(tmp_path_factory.mktemp("stage"))


def _staged(folder: Path) -> Iterator[Stage]:
    found = Stage(folder)
    try:
        yield found
    finally:
        found.stop()

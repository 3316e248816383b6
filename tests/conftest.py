"""What every test stands on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SERVICE_NAMES = (
    "SERVICE_MODE",
    "WORKER_MODEL_KEY",
    "WORKER_ID",
    "MAX_CONCURRENT_GPU_REQUESTS",
    "REQUEST_TIMEOUT_SECONDS",
    "EXPERT_MAPPING_PATH",
    "EXPERT_REGISTRY_PATH",
    "ADAPTER_PATH",
    "CONFIG_PATH",
    "DATABASE_URL",
)
KEPT = ("MOLE_CACHE_DIR",)
"""The models there are costly to make, and the same for every test."""


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test sets what it needs; the developer's own environment must not change its outcome.

    Each test has a database of its own.
    """
    for name in list(os.environ):
        if name in SERVICE_NAMES or (name.startswith("MOLE_") and name not in KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MOLE_STATE_DIR", str(tmp_path / "state"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: faults, floods and generated cases as long and as many as the bars ask for."""
    parser.addoption("--full", action="store_true", help="full durations and counts, not CI's short ones")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--full"))

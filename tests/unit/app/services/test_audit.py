"""The audit log's lines."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services import audit


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    logger = audit.logger
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


def test_lines_go_to_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    audit.configure(file)
    audit.record("key.created", actor="cli:ann", key_id="k", scopes=("jobs",), name="é\n")
    audit.configure(file)  # a second start appends
    audit.record("key.revoked", actor=audit.command_actor(), key_id="k")
    first, second = map(json.loads, file.read_text().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "logger": "mole.audit", "event": "key.created", "actor": "cli:ann", "key_id": "k",
        "scopes": ["jobs"], "name": "é\n",
    }  # fmt: skip
    assert second["actor"].startswith("cli:")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_so_is_the_file_after_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    audit.configure(file)
    file.rename(tmp_path / "audit.1")
    audit.record("key.revoked", actor="cli:ann", key_id="k")
    assert json.loads(file.read_text())["key_id"] == "k"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_file_they_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    audit.configure(None)
    audit.record("router.promoted", actor="cli:ann", version=3)
    assert json.loads(capsys.readouterr().err)["version"] == 3


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        audit.configure(tmp_path / "no" / "such" / "folder")


def test_before_the_start_nothing_is_written() -> None:
    audit.logger.setLevel(logging.WARNING)
    audit.record("x", actor="y", value=object())  # would be no JSON

"""`mole router` and `mole train router`, over a real process and a real database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from app.storage.storage import Storage
from moe_router.gating.versions import pack
from tests.unit.moe_router.training.feedback_world import shipped
from tests.unit.mole.test_command import mole


@pytest.fixture
def database(tmp_path: Path) -> str:
    """With a rejected version and two candidates, the last of them learned from other shipped weights."""
    url = f"sqlite:///{tmp_path / 'mole.db'}"

    async def fill() -> None:
        storage = Storage(url, retention_days=1, queue_size=1, count=lambda *_: None)
        blob, plain = pack(shipped())
        other = pack(shipped(), "another's")[1]
        reasons = ["guard: accuracy [0.9]"]
        for state, meta, why in (
            ("rejected", plain, reasons), ("candidate", plain, []), ("candidate", other, []),
        ):  # fmt: skip
            await storage.router_versions.add(
                blob, meta=meta, metrics={"reasons": why}, parent_id=None, at=1_700_000_000.0, state=state
            )
        await storage.database.aclose()

    asyncio.run(fill())
    return url


def test_versions_are_listed_newest_first_with_the_reasons(database):
    result = mole("router", "versions", "--database", database)
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["3", "candidate"], ["2", "candidate"], ["1", "rejected"]]
    assert lines[2].endswith("2023-11-14T22:13:20+00:00  from shipped  guard: accuracy [0.9]")
    assert lines[0].endswith("  from shipped  learned from other shipped weights than those in use")
    found = json.loads(mole("router", "versions", "--database", database, "--json").stdout)
    assert [(version["id"], version["outdated"]) for version in found] == [(3, True), (2, False), (1, False)]


def test_a_version_is_promoted_and_taken_back(database):
    for arguments, said in (
        (("promote", "2"), "version 2 is live"),
        (("promote", "3"), "version 3 is live"),
        (("rollback",), "version 2 is live"),
        (("rollback",), "the shipped weights are live"),
    ):
        assert mole("router", *arguments, "--database", database).stdout.strip() == said


def test_no_version_yet(tmp_path):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert mole("keys", "create", "first", "--database", url).returncode == 0
    result = mole("router", "versions", "--database", url)
    assert result.stdout.strip() == "no version yet: the shipped weights are in force"


def test_a_missing_version_is_one_line_and_no_traceback(database):
    result = mole("router", "promote", "9", "--database", database)
    assert result.returncode != 0
    assert "There is no router version 9." in result.stderr
    assert "Traceback" not in result.stderr


def test_training_from_anything_but_feedback_is_a_usage_error():
    result = mole("train", "router")
    assert result.returncode == 2
    assert "--from-feedback" in result.stderr

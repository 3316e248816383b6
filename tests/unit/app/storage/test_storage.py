from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from app.storage import storage as module
from app.storage.models import Decision, Feedback
from app.storage.records import FeedbackRecord
from app.storage.storage import DAY_S, Storage
from moe_router.errors import ConfigError
from tests.stubs.records import TASK, record
from tests.stubs.serving import until
from tests.stubs.sessions import session_on

NOW = 100 * DAY_S


def make(folder: Path, **given: float) -> Storage:
    return Storage(
        f"sqlite:///{folder}/x.sqlite3",
        retention_days=30,
        queue_size=10,
        count=lambda *_: None,
        clock=lambda: NOW,
        **given,
    )


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    found = make(tmp_path)
    yield found
    await found.aclose()


async def count(storage: Storage) -> int:
    async with session_on(storage.database) as session:
        return await session.scalar(select(func.count()).select_from(Decision)) or 0


async def test_a_decision_that_still_waits_is_found(storage: Storage) -> None:
    storage.recorder.record(record("r-1"))
    found = await storage.find_decision("r-1", "c")
    assert found is not None
    assert found.task == TASK


async def test_decisions_and_what_was_said_of_them_are_kept_for_their_days(storage: Storage) -> None:
    ages = [0.0, 29.9, 30.1, 99.0]
    await storage.decisions.add([record(f"{age}", created_at=NOW - age * DAY_S) for age in ages])
    for age in ages:
        found = await storage.find_decision(f"{age}", "c")
        assert found is not None
        at = NOW - age * DAY_S
        await storage.feedback.put(FeedbackRecord(f"{age}", "c", found.id, None, None, 1.0, at))
    assert await storage.purge() == 2
    assert await count(storage) == 2
    async with session_on(storage.database) as session:
        assert set(await session.scalars(select(Feedback.request_id))) == {"0.0", "29.9"}


async def test_finished_jobs_are_kept_for_their_days(tmp_path: Path) -> None:
    found = make(tmp_path, job_retention_days=7)
    for job_id, at in (("old", NOW - 8 * DAY_S), ("new", NOW - 6 * DAY_S)):
        await found.jobs.begin(job_id, "o", at=at, most=9)
        await found.jobs.append(job_id, 0, ["{}"])
        await found.jobs.submit(job_id, total=1, key=None, body_hash="h", at=at)
        await found.jobs.cancel(job_id, "o", at=at)
    await found.jobs.begin("broken-off", "o", at=NOW - 2 * 3600, most=9)
    assert await found.purge_jobs() == 2
    assert [job.id for job in await found.jobs.newest("o", limit=9)] == ["new"]
    await found.aclose()


async def test_it_clears_when_it_starts_and_writes_what_waits_when_it_ends(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.decisions.add([record("old", created_at=0.0)])
    await first.aclose()
    second = make(tmp_path)
    second.start()
    second.recorder.record(record("new", created_at=NOW))
    await second.aclose()
    third = make(tmp_path)
    await third.purge()
    async with session_on(third.database) as session:
        assert list(await session.scalars(select(Decision.request_id))) == ["new"]
    await third.aclose()


async def test_a_fault_that_nobody_expects_does_not_end_the_clearing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[float] = []

    async def broken(before: float) -> int:
        rounds.append(before)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(module, "PURGE_EVERY_S", 0.001)
    monkeypatch.setattr(storage.decisions, "purge", broken)
    storage.start()
    await until(lambda: len(rounds) > 2)
    assert "a fault of ours" in caplog.text


def test_an_unusable_url_is_told_at_once() -> None:
    with pytest.raises(ConfigError):
        Storage("mysql://h/d", retention_days=1, queue_size=1, count=lambda *_: None)

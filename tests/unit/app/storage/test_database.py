from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage import database as module
from app.storage import engine
from app.storage.database import Database
from app.storage.models import Base, Secret
from moe_router.errors import StorageError
from tests.stubs.sessions import session_on


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/folder/x.sqlite3")
    yield found
    await found.aclose()


async def write(database: Database, name: str, value: bytes = b"v", fault: Exception | None = None) -> None:
    async def put(session: AsyncSession) -> None:
        session.add(Secret(name=name, value=value))
        await session.flush()
        if fault is not None:
            raise fault

    await database.write(put)


async def names(database: Database) -> list[str]:
    async def read(session: AsyncSession) -> list[str]:
        return list(await session.scalars(select(Secret.name).order_by(Secret.name)))

    return await database.read(read)


async def test_what_is_written_is_read_and_what_raises_is_not_written(database: Database) -> None:
    await write(database, "a")
    with pytest.raises(IntegrityError):
        await write(database, "a")
    with pytest.raises(ValueError, match="no"):
        await write(database, "b", fault=ValueError("no"))
    assert await names(database) == ["a"]


async def test_sqlite_is_set_to_keep_what_it_said_it_kept(database: Database) -> None:
    async with session_on(database) as session:
        found = {
            name: await session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


async def test_writers_at_once_wait_for_each_other(database: Database) -> None:
    async def count_up(session: AsyncSession) -> None:
        before = await session.scalar(select(func.count()).select_from(Secret))
        await asyncio.sleep(0)
        session.add(Secret(name=f"{before:03}", value=b"v"))

    await asyncio.gather(*(database.write(count_up) for _ in range(20)))
    assert await names(database) == [f"{i:03}" for i in range(20)]


async def test_first_sessions_at_once_migrate_once(database: Database) -> None:
    found = await asyncio.gather(*(names(database) for _ in range(10)))
    assert found == [[]] * 10


async def test_who_waits_for_a_database_that_hangs_shares_one_attempt_and_its_failure(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts, gate = 0, asyncio.Event()

    async def hanging() -> bool:
        nonlocal attempts
        attempts += 1
        await gate.wait()
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(database, "_is_newest", hanging)
        waiting = [asyncio.create_task(names(database)) for _ in range(9)]
        gone = waiting.pop()
        await asyncio.sleep(0)
        gone.cancel()  # one caller who goes ends nobody else's
        await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in found] == [StorageError] * 8
        assert attempts == 1
    assert await names(database) == []


async def test_nobody_waits_longer_for_an_attempt_than_for_a_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def hanging() -> bool:
        await gate.wait()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(database, "_is_newest", hanging)
        patch.setattr(module, "TRANSACTION_TIMEOUT_S", 0.01)
        for _ in range(2):
            with pytest.raises(StorageError):
                await names(database)
        assert database.generation == 0, "a migration that takes long is no loss"
    gate.set()
    assert await names(database) == []


async def test_an_end_waits_little_for_an_attempt_that_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def hanging() -> bool:
        begun.set()
        await gate.wait()
        return True

    monkeypatch.setattr(database, "_is_newest", hanging)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    waiting = asyncio.create_task(names(database))
    await begun.wait()
    async with asyncio.timeout(module.TRANSACTION_TIMEOUT_S / 2):
        await database.aclose()
    waiting.cancel()
    gate.set()


async def test_a_folder_that_cannot_be_written_is_told_and_recovered_from(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file is in the way")
    database = Database(f"sqlite:///{tmp_path}/folder/x.sqlite3")
    with pytest.raises(StorageError) as raised:
        await write(database, "a")
    assert (raised.value.status, raised.value.retry_after_s) == (503, 5)
    assert str(tmp_path) not in raised.value.detail
    (tmp_path / "folder").unlink()
    await write(database, "a")
    assert await names(database) == ["a"]
    await database.aclose()


async def test_a_file_that_was_taken_away_is_made_anew(database: Database, tmp_path: Path) -> None:
    await write(database, "a")
    for file in (tmp_path / "folder").iterdir():
        file.unlink()
    await database._engine.dispose()  # as idle connections end by themselves
    with pytest.raises(StorageError):
        await write(database, "b")
    await write(database, "b")
    assert await names(database) == ["b"]


async def test_a_connection_in_use_while_the_database_is_lost_is_closed_not_stranded(
    database: Database,
) -> None:
    """The driver warns of a connection that nobody closed, and the suite fails at the warning."""
    await write(database, "a")
    async with session_on(database) as session:
        assert await session.scalar(text("SELECT 1")) == 1
        database.reconnect()
        assert await session.scalar(text("SELECT 1")) == 1
        await write(database, "b")  # by a connection of its own
    assert await names(database) == ["a", "b"]
    await database.aclose()
    gc.collect()


async def test_a_full_disk_is_told_and_nothing_is_half_written(database: Database) -> None:
    await write(database, "a")
    async with session_on(database) as session:
        pages = await session.scalar(text("PRAGMA page_count"))

    def full(connection: sqlite3.Connection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count={pages}")
        cursor.close()

    await database._engine.dispose()
    event.listen(database._engine.sync_engine, "connect", full)
    with pytest.raises(StorageError):
        await write(database, "b", b"x" * 1_000_000)
    assert await names(database) == ["a"]
    event.remove(database._engine.sync_engine, "connect", full)
    await database._engine.dispose()
    await write(database, "b")
    assert await names(database) == ["a", "b"]


async def test_a_database_that_is_locked_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    database = Database(f"sqlite:///{tmp_path}/folder/x.sqlite3")
    await write(database, "a")
    other = sqlite3.connect(tmp_path / "folder" / "x.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await names(database) == ["a"]  # readers go on
    with pytest.raises(StorageError):
        await write(database, "b")
    other.execute("ROLLBACK")
    other.close()
    await write(database, "b")
    assert await names(database) == ["a", "b"]
    await database.aclose()


async def test_too_much_at_once_is_refused_and_the_database_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(engine, "POOL_SIZE", 1)  # and one more
    database = Database(f"sqlite:///{tmp_path}/folder/x.sqlite3")
    async with session_on(database) as first, session_on(database) as second:
        assert [await session.scalar(text("SELECT 1")) for session in (first, second)] == [1, 1]
        with pytest.raises(StorageError) as raised:
            await names(database)
        assert raised.value.retry_after_s == 5
        assert database.available
        assert database._generation == 0
    assert await names(database) == []
    await database.aclose()


async def test_mistakes_of_ours_are_no_faults_of_the_database(tmp_path: Path, database: Database) -> None:
    async def mistaken(error: Exception, _session: AsyncSession) -> None:
        raise error

    for error in (ZeroDivisionError(), TimeoutError()):
        with pytest.raises(type(error)):
            await database.read(partial(mistaken, error))
    assert database.generation == 0
    assert not module._is_ours(ValueError())
    assert module._is_ours(ProgrammingError("x", {}, Exception()))


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite3").write_bytes(b"not a database" * 1000)
    database = Database(f"sqlite:///{tmp_path}/x.sqlite3")
    with pytest.raises(StorageError):
        await names(database)
    await database.aclose()


def test_every_table_of_the_design_is_there() -> None:
    wanted = {"decisions", "feedback", "router_versions", "jobs", "job_items", "api_keys"}
    assert wanted <= set(Base.metadata.tables)

"""A caller who goes, or a limit of time, leaves no lock behind: others write at once.

The garbage collector is off: it would end a connection that was left to it, late, and so hide the fault.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage import database as module
from app.storage.database import Database
from app.storage.engine import SQLITE
from app.storage.models import Secret
from moe_router.errors import StorageError

MOMENTS = 150
STEPS = 40
LONGEST_S = 0.02
"""Some times what a write takes: moments before, in, and after it."""
AT_ONCE_S = 4.0
"""Less than SQLite waits for a lock."""
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(autouse=True)
def no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def others(url: str, database: Database) -> AsyncIterator[Database]:
    """Another process, so to speak."""
    await database.ready()
    found = Database(url)
    yield found
    await found.aclose()


async def put(name: str, session: AsyncSession) -> None:
    """Two rows, or none; looks first, as SQLite closes no connection of which a statement is still open."""
    await session.execute(text("SELECT name FROM secrets"))
    for row in (f"{name}-1", f"{name}-2"):
        session.add(Secret(name=row, value=b"v"))
        await session.flush()


async def names(session: AsyncSession) -> list[str]:
    """Of what is there, each twice if it is whole."""
    found = await session.scalars(text("SELECT name FROM secrets ORDER BY name"))
    return [name.partition("-")[0] for name in found]


async def cancelled_at(step: int, work: Coroutine[Any, Any, None]) -> None:
    """Is cancelled the moment it waits for the so manieth time."""
    await _Stepped(step, work)


class _Stepped:
    def __init__(self, step: int, work: Coroutine[Any, Any, None]) -> None:
        self._left = step
        self._steps = work.__await__()

    def __await__(self) -> Iterator[Any]:
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        waited_for = self._steps.send(value)
        task = asyncio.current_task()
        if self._left == 0 and task is not None:
            task.cancel()
        self._left -= 1
        return waited_for

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()


async def hang(dialect: str, session: AsyncSession, *, begun: asyncio.Event | None = None) -> None:
    await put("hanging", session)
    if begun is not None:
        begun.set()
    await session.execute(text(ENDLESS if dialect == SQLITE else "SELECT pg_sleep(600)"))


async def test_a_write_cancelled_at_any_moment_is_whole_or_none_and_nobody_waits(
    database: Database, others: Database
) -> None:
    moments = random.Random(5)  # noqa: S311
    for number in range(MOMENTS):
        writing = asyncio.create_task(database.write(partial(put, f"{number}")))
        await asyncio.sleep(moments.uniform(0, LONGEST_S))
        writing.cancel()
        await asyncio.wait({writing})
        async with asyncio.timeout(AT_ONCE_S):
            await others.write(partial(put, f"other {number}"))
            await database.read(names)
    found = Counter(await others.read(names))
    assert set(found.values()) == {2}
    assert sum(name.startswith("other") for name in found) == MOMENTS
    assert database.generation == others.generation == 0


async def test_a_write_cancelled_at_each_of_its_steps(database: Database, others: Database) -> None:
    for step in range(STEPS):
        writing = asyncio.create_task(cancelled_at(step, database.write(partial(put, f"{step}"))))
        await asyncio.wait({writing})
        del writing  # what waits for it must not keep a connection that nobody ends
        async with asyncio.timeout(AT_ONCE_S):
            await others.write(partial(put, f"other {step}"))
            await database.read(names)  # so that the next begins with a connection that is there
    assert set(Counter(await others.read(names)).values()) == {2}


async def test_many_cancelled_at_once(database: Database, others: Database) -> None:
    moments = random.Random(6)  # noqa: S311
    for number in range(10):
        writing = [asyncio.create_task(database.write(partial(put, f"{number} {i}"))) for i in range(8)]
        await asyncio.sleep(moments.uniform(0, 2 * LONGEST_S))
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
        async with asyncio.timeout(AT_ONCE_S):
            await others.write(partial(put, f"other {number}"))


async def test_a_caller_who_goes_from_a_statement_that_hangs_is_free_and_the_limit_ends_it(
    database: Database, others: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    with monkeypatch.context() as patch:  # the limit is read when a transaction begins
        patch.setattr(module, "TRANSACTION_TIMEOUT_S", 2.0)
        writing = asyncio.create_task(database.write(partial(hang, database.dialect, begun=begun)))
        await begun.wait()
    writing.cancel()
    async with asyncio.timeout(AT_ONCE_S):
        await asyncio.wait({writing})
    assert database._under_way, "it has not waited for the limit"
    async with asyncio.timeout(2 * AT_ONCE_S):
        await others.write(partial(put, "others"))
        assert await others.read(names) == ["others"] * 2


async def test_a_write_that_takes_too_long_is_rolled_back_and_lets_go(
    database: Database, others: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "TRANSACTION_TIMEOUT_S", 0.3)
        with pytest.raises(StorageError):
            await database.write(partial(hang, database.dialect))
    async with asyncio.timeout(AT_ONCE_S):
        await others.write(partial(put, "others"))
        await database.write(partial(put, "mine"))
        assert await others.read(names) == ["mine", "mine", "others", "others"]


async def test_an_end_breaks_off_what_hangs(
    database: Database, others: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.2)
    begun = asyncio.Event()
    writing = asyncio.create_task(database.write(partial(hang, database.dialect, begun=begun)))
    await begun.wait()
    async with asyncio.timeout(AT_ONCE_S):
        await database.aclose()
        await others.write(partial(put, "others"))
        assert await others.read(names) == ["others"] * 2
    await asyncio.gather(writing, return_exceptions=True)

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, func, select

from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.decisions import MOST_ROWS, Decisions
from app.storage.models import Decision
from tests.stubs.records import record
from tests.stubs.sessions import session_on


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(f"sqlite:///{tmp_path}/x.sqlite3")
    yield found
    await found.aclose()


@pytest.mark.parametrize("rows", [1, 2, 3, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS + 77])
async def test_every_record_is_written_once(database: Database, rows: int) -> None:
    await Decisions(database, Callers(database)).add([record(f"r-{i}") for i in range(rows)])
    async with session_on(database) as session:
        ids = list(await session.scalars(select(Decision.request_id).order_by(Decision.id)))
    assert ids == [f"r-{i}" for i in range(rows)]


async def test_batches_of_any_length_make_few_statements_since_each_is_kept_compiled(
    database: Database,
) -> None:
    seen: set[str] = set()

    def note(_c: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("INSERT INTO decisions"):
            seen.add(statement)

    event.listen(Engine, "before_cursor_execute", note)
    decisions = Decisions(database, Callers(database))
    for rows in (*range(1, 40), 100, 200, 300, 600):
        await decisions.add([record(f"{rows}-{i}") for i in range(rows)])
    assert len(seen) == MOST_ROWS.bit_length()
    event.remove(Engine, "before_cursor_execute", note)
    async with session_on(database) as session:
        assert await session.scalar(select(func.count()).select_from(Decision)) == sum(range(1, 40)) + 1200


async def test_all_or_none_are_written(database: Database) -> None:
    damaged = record("bad")._replace(request_id=None)  # type: ignore[arg-type]
    # The last of several statements fails.
    with pytest.raises(Exception, match="request_id"):
        await Decisions(database, Callers(database)).add([*(record(f"r-{i}") for i in range(4)), damaged])
    async with session_on(database) as session:
        assert await session.scalar(select(func.count()).select_from(Decision)) == 0

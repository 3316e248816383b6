from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from app.storage import recorder as module
from app.storage.recorder import Recorder
from app.storage.records import DecisionRecord
from moe_router.errors import StorageError
from tests.stubs.records import record
from tests.stubs.serving import until


def psycopg_error(sqlstate: str) -> Exception:
    error = Exception("as psycopg says it")
    error.sqlstate = sqlstate  # type: ignore[attr-defined]
    return error


class Table:
    """A database that can be gone, slow, or refuse a row."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.batches: list[int] = []
        self.gone = False
        self.poison: str | None = None
        self.fault: Exception = ValueError("no such column")
        self.attempts = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.counts: Counter[str] = Counter()

    async def write(self, records: Sequence[DecisionRecord]) -> None:
        await self.gate.wait()
        self.attempts += 1
        if self.gone:
            raise StorageError("gone")
        if self.poison in [r.request_id for r in records]:
            raise self.fault
        self.rows += [r.request_id for r in records]
        self.batches.append(len(records))

    def count(self, outcome: str, number: int) -> None:
        self.counts[outcome] += number

    def recorder(self, size: int = 2 * module.BATCH) -> Recorder:
        return Recorder(self.write, size=size, count=self.count, linger_s=0.0, retry_s=0.0)


@pytest.fixture
def table() -> Table:
    return Table()


async def test_records_are_written_in_order_and_in_batches(table: Table) -> None:
    recorder = table.recorder()
    for i in range(module.BATCH + 5):
        recorder.record(record(f"r-{i}"))
    await recorder.flush()
    assert table.rows == [f"r-{i}" for i in range(module.BATCH + 5)]
    assert table.batches == [module.BATCH, 5]
    assert table.counts == {"written": module.BATCH + 5}


async def test_it_writes_by_itself(table: Table) -> None:
    recorder = table.recorder()
    recorder.start()
    for name in ("a", "b"):
        recorder.record(record(name))
        await until(lambda name=name: name in table.rows)
    await recorder.aclose()
    assert table.rows == ["a", "b"]


async def test_a_full_queue_drops_and_counts_and_never_waits(table: Table) -> None:
    table.gate.clear()
    recorder = table.recorder(size=3)
    recorder.start()
    for i in range(10):
        recorder.record(record(f"r-{i}"))
    assert table.counts == {"full": 7}
    table.gate.set()
    await recorder.aclose()
    assert table.rows == ["r-0", "r-1", "r-2"]


async def test_records_wait_for_a_database_that_is_gone(table: Table) -> None:
    table.gone = True
    recorder = table.recorder()
    recorder.start()
    recorder.record(record("a"))
    with pytest.raises(StorageError):
        await recorder.flush()
    assert not table.counts
    table.gone = False
    await until(lambda: table.rows == ["a"])
    await recorder.aclose()
    assert table.counts == {"written": 1}


async def test_what_comes_during_a_write_waits_for_its_own_batch(table: Table) -> None:
    recorder = Recorder(table.write, size=100, count=table.count, linger_s=3600.0, retry_s=0.0)
    table.gate.clear()
    recorder.record(record("a"))
    flush = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for name in ("b", "c"):
        recorder.record(record(name))
    table.gate.set()
    await flush
    assert table.rows == ["a"], "a stream of records must not become a stream of transactions"
    recorder.start()
    await recorder.aclose()
    assert table.rows == ["a", "b", "c"]
    assert table.batches == [1, 2]


async def test_what_no_database_takes_blocks_nothing_behind_it(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    table.poison = "a"
    recorder = table.recorder()
    recorder.record(record("a"))
    await recorder.flush()
    recorder.record(record("b"))
    await recorder.flush()
    assert table.rows == ["b"]
    assert table.counts == {"unwritable": 1, "written": 1}
    assert "1 decisions cannot be recorded" in caplog.text


async def test_a_row_that_no_database_takes_takes_no_other_along(table: Table) -> None:
    table.poison = "r-3"
    recorder = table.recorder()
    for i in range(20):
        recorder.record(record(f"r-{i}"))
    await recorder.flush()
    assert table.rows == [f"r-{i}" for i in range(20) if i != 3]
    assert table.counts == {"unwritable": 1, "written": 19}


async def test_what_every_row_would_meet_is_no_search_for_one(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    table.poison = "r-3"
    table.fault = ProgrammingError("INSERT", {}, psycopg_error("42501"))
    recorder = table.recorder()
    for i in range(module.BATCH + 1):
        recorder.record(record(f"r-{i}"))
    await recorder.flush()
    assert table.attempts == 2
    assert table.rows == [f"r-{module.BATCH}"]
    assert table.counts == {"unwritable": module.BATCH, "written": 1}
    assert [r.getMessage() for r in caplog.records] == [
        f"{module.BATCH} decisions cannot be recorded; the first:"
    ]


@pytest.mark.parametrize(
    "fault",
    [
        IntegrityError("INSERT", {}, psycopg_error("23505")),
        DataError("INSERT", {}, psycopg_error("22003")),
        ProgrammingError("INSERT", {}, sqlite3.ProgrammingError("type 'set' is not supported")),
        OverflowError("Python int too large to convert to SQLite INTEGER"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_what_a_value_is_to_blame_for_takes_its_row_alone(
    table: Table, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    table.poison, table.fault = "r-3", fault
    recorder = table.recorder()
    for i in range(8):
        recorder.record(record(f"r-{i}"))
    recorder.record(record("r-3"))
    await recorder.flush()
    assert table.counts == {"unwritable": 2, "written": 7}
    assert [r.getMessage() for r in caplog.records] == ["2 decisions cannot be recorded; the first:"]


async def test_a_database_that_goes_in_the_middle_of_a_search_gets_nothing_twice(table: Table) -> None:
    table.poison = "r-3"
    write = table.write

    async def until_gone(records: Sequence[DecisionRecord]) -> None:
        await write(records)
        table.gone = True

    table.write = until_gone  # type: ignore[method-assign]
    recorder = table.recorder()
    for i in range(4):
        recorder.record(record(f"r-{i}"))
    with pytest.raises(StorageError):
        await recorder.flush()
    assert table.rows == ["r-0", "r-1"]
    table.gone = False
    with pytest.raises(StorageError):
        await recorder.flush()
    table.gone = False
    await recorder.flush()
    assert table.rows == ["r-0", "r-1", "r-2"]
    assert table.counts == {"unwritable": 1, "written": 3}


async def test_closing_counts_what_is_lost(table: Table) -> None:
    table.gone = True
    recorder = table.recorder()
    recorder.start()
    recorder.record(record("a"))
    await recorder.aclose()
    assert table.counts == {"closed": 1}


async def test_a_caller_that_goes_while_flushing_breaks_no_transaction(table: Table) -> None:
    table.gate.clear()
    recorder = table.recorder()
    recorder.record(record("a"))
    flush = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0)
    flush.cancel()
    await asyncio.gather(flush, return_exceptions=True)
    table.gate.set()
    await recorder.flush()
    assert table.rows == ["a"]

from __future__ import annotations

import sqlite3
from pathlib import Path

from app.storage.callers import Callers
from app.storage.database import Database
from app.storage.identity import opaque


async def test_another_database_hashes_otherwise(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b", "a"):
        database = Database(f"sqlite:///{tmp_path}/{name}")
        found.append(await Callers(database).hash_of("address:192.0.2.1"))
        await database.aclose()
    assert found[0] == found[2] != found[1]


async def test_a_caller_is_known_while_another_process_writes(tmp_path: Path) -> None:
    first, second = (Database(f"sqlite:///{tmp_path}/x") for _ in range(2))
    expected = await Callers(first).hash_of("x")
    with sqlite3.connect(tmp_path / "x", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await Callers(second).hash_of("x") == expected
        other.execute("ROLLBACK")
    await first.aclose()
    await second.aclose()


async def test_processes_of_one_database_name_a_caller_alike_to_workers(tmp_path: Path) -> None:
    found = [opaque("address:192.0.2.1")]
    for name in ("a", "b", "a"):
        database = Database(f"sqlite:///{tmp_path}/{name}")
        await Callers(database).hash_of("x")
        found.append(opaque("address:192.0.2.1"))
        await database.aclose()
    assert found[1] == found[3]
    assert len(set(found)) == 3


async def test_a_database_that_takes_the_place_of_another_gets_a_secret_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "x"
    database = Database(f"sqlite:///{file}")
    callers = Callers(database)
    before = await callers.hash_of("x")
    for gone in list(tmp_path.glob("x*")):  # noqa: ASYNC240
        gone.unlink()
    database.reconnect()
    after = await callers.hash_of("x")
    await database.aclose()
    again = Database(f"sqlite:///{file}")
    assert await Callers(again).hash_of("x") == after != before
    await again.aclose()

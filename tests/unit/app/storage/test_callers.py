from __future__ import annotations

from pathlib import Path

from app.storage.callers import Callers
from app.storage.database import Database


async def test_another_database_hashes_otherwise(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b", "a"):
        database = Database(f"sqlite:///{tmp_path}/{name}")
        found.append(await Callers(database).hash_of("address:192.0.2.1"))
        await database.aclose()
    assert found[0] == found[2] != found[1]

"""The table of API keys, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from app.storage.api_keys import ApiKeys, NewKey
from app.storage.database import Database
from app.storage.key_records import PREFIX_CHARS, Usage, key_hash
from moe_router.errors import UnknownKeyError
from tests.stubs.sessions import session_on


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(database: Database) -> None:
    keys = ApiKeys(database)
    record, key = await keys.create(NewKey("ci", ("classify", "jobs"), 60, 1000, 99.0), at=10.0)
    _, other = await keys.create(NewKey("ci", ("admin",)), at=11.0)
    assert len(key) == 48
    assert key != other
    assert record.prefix == key[:PREFIX_CHARS]
    assert record.key_hash == key_hash(key)
    first, second = await keys.all()
    assert first == record
    assert (first.scopes, first.rate_per_minute, first.quota_per_day) == (("classify", "jobs"), 60, 1000)
    assert (first.usable(98.0), first.usable(99.0)) == (True, False)
    assert second.expires_at is None
    assert (second.may("jobs"), first.may("feedback"), first.may("jobs")) == (True, False, True)
    async with session_on(database) as session:
        rows = (await session.execute(text("SELECT * FROM api_keys"))).all()
    assert key not in str(rows)


async def test_revoked_stays_revoked_and_forgotten_is_gone(database: Database) -> None:
    keys = ApiKeys(database)
    record, _ = await keys.create(NewKey("a", ("classify",)), at=10.0)
    assert (await keys.revoke(record.id, at=20.0)).revoked_at == 20.0
    assert (await keys.revoke(record.id, at=30.0)).revoked_at == 20.0
    assert not (await keys.all())[0].usable(21.0)
    await keys.forget(record.id)
    assert await keys.all() == []
    for unknown in (keys.revoke(record.id, at=1.0), keys.forget(record.id)):
        with pytest.raises(UnknownKeyError):
            await unknown


async def test_what_several_processes_used_at_once_adds_up(database: Database) -> None:
    keys = ApiKeys(database)
    ids = [(await keys.create(NewKey("a", ("classify",)), at=10.0 + i))[0].id for i in range(2)]
    batches = [{ids[i % 2]: Usage(5, 7, 100.0 + i), ids[1 - i % 2]: Usage(1, 7, 100.0)} for i in range(8)]
    await asyncio.gather(*(keys.add_usage(batch) for batch in batches))
    assert [(key.usage_day, key.usage_count) for key in await keys.all()] == [(7, 24), (7, 24)]
    await keys.add_usage({ids[0]: Usage(3, 8, 200.0)})  # another day begins at 0
    await keys.add_usage({ids[0]: Usage(9, 7, 200.0)})  # and one that is over counts no more
    found = (await keys.all())[0]
    assert (found.usage_day, found.usage_count, found.last_used_at) == (8, 3, 200.0)
    assert (found.used_on(8), found.used_on(9)) == (3, 0)

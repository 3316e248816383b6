"""The keys in memory: who is let in, while the table changes and while it is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from app.services import keyring as module
from app.services.keyring import Keyring
from app.storage.key_records import KeyRecord, Usage
from moe_router.errors import StorageError, UnauthorizedError
from tests.stubs.keys import key_record


class Table:
    def __init__(self, *records: KeyRecord) -> None:
        self.records = list(records)
        self.gone = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.written: list[dict[str, Usage]] = []

    async def all(self) -> list[KeyRecord]:
        if self.gone:
            raise StorageError("gone")
        return list(self.records)

    async def add_usage(self, usage: Mapping[str, Usage]) -> None:
        await self.answers.wait()
        if self.gone:
            raise StorageError("gone")
        self.written.append(dict(usage))


async def test_no_key_is_asked_for_until_there_is_one_and_then_always(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    table = Table()
    ring = Keyring(table, required=False, clock=lambda: 50.0)
    await ring.refresh()
    await ring.refresh()
    assert not ring.enforced
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    table.records.append(key_record("mole_one"))
    await ring.refresh()
    assert ring.enforced
    assert ring.find("mole_one").caller == "key:k-1"
    table.records[0] = key_record("mole_one", revoked_at=40.0)
    await ring.refresh()
    assert ring.enforced
    with pytest.raises(UnauthorizedError):
        ring.find("mole_one")
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "mole_one" not in caplog.text


async def test_what_is_not_valid_is_refused() -> None:
    now = [50.0]
    ring = Keyring(Table(key_record("mole_one", expires_at=60.0)), required=False, clock=lambda: now[0])
    await ring.refresh()
    assert ring.find("mole_one").record.id == "k-1"
    for wrong, given in ((None, False), ("", True), ("mole_two", True), ("mole_one" * 99, True), ("é", True)):
        with pytest.raises(UnauthorizedError) as refused:
            ring.find(wrong)
        assert refused.value.key_given is given
    now[0] = 60.0
    with pytest.raises(UnauthorizedError):
        ring.find("mole_one")


async def test_a_key_may_be_required_before_there_is_one() -> None:
    ring = Keyring(Table(), required=True)
    await ring.refresh()
    assert ring.enforced
    assert ring.state == "required"


async def test_the_last_known_keys_stay_while_the_database_is_gone_and_their_use_is_not_lost() -> None:
    table = Table(key_record("mole_one", quota_per_day=100))
    ring = Keyring(table, required=False)
    await ring.refresh()
    table.gone = True
    found = ring.find("mole_one")
    found.take_request()
    found.take_texts(3)
    with pytest.raises(StorageError):
        await ring.refresh()
    assert ring.find("mole_one") is found
    table.gone = False
    await ring.refresh()
    assert ring.find("mole_one") is found
    assert [used.texts for used in table.written[0].values()] == [3]
    await ring.refresh()
    assert len(table.written) == 1


async def test_nobody_is_let_in_before_the_keys_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.001)
    table = Table()
    table.gone = True
    ring = Keyring(table, required=False)
    assert ring.state == "unknown"
    ring.start()
    with pytest.raises(StorageError):
        await ring.wait_known()
    table.gone = False
    async with asyncio.timeout(10):
        while not ring.known:  # noqa: ASYNC110 - the ring has no event
            await asyncio.sleep(0.001)
    await ring.wait_known()
    await ring.aclose()
    assert ring.state == "not required"


async def test_what_was_used_is_written_at_the_end() -> None:
    table = Table(key_record("mole_one"))
    ring = Keyring(table, required=False)
    ring.start()
    await ring.wait_known()
    ring.find("mole_one").take_request()
    await ring.aclose()
    assert list(table.written[-1]) == ["k-1"]


async def test_an_end_waits_little_for_a_database_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.01)
    table = Table(key_record("mole_one"))
    ring = Keyring(table, required=False)
    ring.start()
    await ring.wait_known()
    ring.find("mole_one").take_request()
    table.answers.clear()
    async with asyncio.timeout(10):
        await ring.aclose()
    assert "is not counted" in caplog.text

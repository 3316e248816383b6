"""The API keys as this process knows them: no request waits for the database to look one up."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from app.services.key_meter import KeyMeter
from app.storage.identity import key_identity
from app.storage.key_records import LONGEST_TOKEN, KeyRecord, Usage, key_hash
from moe_router.errors import StorageError, UnauthorizedError

logger = logging.getLogger(__name__)

REFRESH_S = 2.0
"""A key that was made or revoked elsewhere is known as such after this time."""
FIRST_READING_S = 5.0
"""How long a request waits for the keys to be read for the first time."""
CLOSE_TIMEOUT_S = 2.0


class Rows(Protocol):
    """The table `api_keys`."""

    async def all(self) -> list[KeyRecord]:
        """Every key."""

    async def add_usage(self, usage: Mapping[str, Usage]) -> None:
        """Adds what keys have used."""


@dataclass(slots=True, eq=False)
class CallerKey:
    """A key that callers present, and what it has used."""

    record: KeyRecord
    meter: KeyMeter = field(default_factory=KeyMeter)

    @property
    def caller(self) -> str:
        """The identity of whoever holds it; see `Call.caller`."""
        return key_identity(self.record.id)

    def check_texts(self, texts: int) -> None:
        """Whether so many are left of the day's quota; counts none.

        Raises:
            QuotaExceededError: so many are not left.
        """
        self.meter.check_texts(self.record, texts, time.time())

    def give_back_texts(self, texts: int) -> None:
        """Counts off texts that were taken for nothing."""
        self.meter.give_back_texts(texts, time.time())

    def take_texts(self, texts: int) -> None:
        """Counts texts against the day's quota.

        Raises:
            QuotaExceededError: so many are not left.
        """
        self.meter.take_texts(self.record, texts, time.time())

    def take_request(self) -> None:
        """Counts a request against the minute's rate.

        Raises:
            RateLimitError: the minute's requests are used up.
        """
        self.meter.take_request(self.record, time.monotonic(), time.time())


class Keyring:
    """Reads the keys regularly, and writes what they have used.

    While the database is gone the keys read last stay in force. Where they could not be read even once,
    nobody is let in: nobody knows whether keys are asked for.

    Args:
        rows: the table.
        required: ask for a key even where there is none.
    """

    def __init__(self, rows: Rows, *, required: bool, clock: Callable[[], float] = time.time) -> None:
        self._rows = rows
        self._required = required
        self._clock = clock
        self._by_hash: dict[str, CallerKey] = {}
        self._by_id: dict[str, CallerKey] = {}
        self._task: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._told: str | None = None
        self.known = False
        """whether they were read at least once"""
        self.enforced = True
        """whether a key is asked for"""

    def start(self) -> None:
        """Begins to read; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Ends it, and writes what was used, if that is possible soon."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    if self._refreshing is not None:
                        await asyncio.wait({self._refreshing})
                    await self._write_usage()
            except (StorageError, TimeoutError):
                if self._refreshing is not None:
                    self._refreshing.cancel()
                logger.warning("what API keys used in the last seconds is not counted")

    async def wait_known(self) -> None:
        """Returns once the keys were read; tries so itself.

        Raises:
            StorageError: they cannot be read now.
        """
        if self.known:
            return
        try:
            async with asyncio.timeout(FIRST_READING_S):
                await self._reading()
        except (TimeoutError, StorageError) as error:
            raise StorageError("The API keys cannot be read from the database now.") from error

    def find(self, token: str | None) -> CallerKey:
        """The key that a caller presents.

        Raises:
            UnauthorizedError: there is none, or it is not valid now.
        """
        if token is None:
            raise UnauthorizedError(
                "An API key is needed: send it as `Authorization: Bearer …`.", key_given=False
            )
        digest = key_hash(token[:LONGEST_TOKEN])
        # The dictionary is keyed by digests, so that how long a look takes tells nothing of any key; the
        # comparison of what was found takes the same time wherever they differ.
        found = self._by_hash.get(digest)
        if found is None or not hmac.compare_digest(found.record.key_hash, digest):
            raise UnauthorizedError("This API key is not known.", key_given=True)
        if not found.record.usable(self._clock()):
            raise UnauthorizedError("This API key has expired or was revoked.", key_given=True)
        return found

    async def refresh(self) -> None:
        """Writes what was used, then reads all keys.

        Raises:
            StorageError: the database cannot be used now.
        """
        await self._write_usage()
        records = await self._rows.all()
        self._by_id = {r.id: self._kept(r) for r in records}
        self._by_hash = {key.record.key_hash: key for key in self._by_id.values()}
        self.enforced = self._required or bool(records)
        self.known = True
        self._tell(sum(r.usable(self._clock()) for r in records))

    @property
    def state(self) -> str:
        """For the health body."""
        if not self.known:
            return "unknown"
        return "required" if self.enforced else "not required"

    def _kept(self, record: KeyRecord) -> CallerKey:
        """The key of that id goes on with what it has used."""
        key = self._by_id.get(record.id)
        if key is None:
            return CallerKey(record)
        key.record = record
        key.meter.written()
        return key

    async def _write_usage(self) -> None:
        collected = {key_id: key.meter.collect() for key_id, key in self._by_id.items()}
        usage = {key_id: used for key_id, used in collected.items() if used is not None}
        if not usage:
            return
        try:
            await self._rows.add_usage(usage)
        except BaseException:  # a cancellation, too
            for key_id, used in usage.items():
                self._by_id[key_id].meter.put_back(used)
            raise

    def _tell(self, usable: int) -> None:
        """Logs what is in force, once for each change."""
        if not self.enforced:
            told = (
                "no API key exists: whoever reaches this port may use the service; "
                "`mole keys create` makes one"
            )
        elif usable:
            told = "API keys are asked for"
        else:
            told = "API keys are asked for, but none is valid; `mole keys create` makes one"
        if told != self._told:
            logger.log(logging.INFO if self.enforced and usable else logging.WARNING, "%s", told)
            self._told = told

    async def _reading(self) -> None:
        """Refreshes, or waits for a refresh under way.

        A task of its own, for which several may wait; none who goes takes it along.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self.refresh())
        await asyncio.shield(self._refreshing)

    async def _run(self) -> None:
        while True:
            try:
                await self._reading()
            except StorageError:  # logged where it arose; the next round tries again
                pass
            except Exception:
                logger.exception("the API keys cannot be read")
            await asyncio.sleep(REFRESH_S)

"""API keys: made, listed, revoked, and their use counted."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import case, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.key_records import PREFIX_CHARS, KeyRecord, Usage, key_hash, new_key
from app.storage.models import ApiKey
from moe_router.errors import UnknownKeyError

ID_BYTES = 6
_COLUMNS = tuple(getattr(ApiKey, name) for name in KeyRecord.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key shall be allowed."""

    name: str
    scopes: tuple[str, ...]
    rate_per_minute: int | None = None
    quota_per_day: int | None = None
    expires_at: float | None = None


class ApiKeys:
    """The table `api_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, wanted: NewKey, *, at: float) -> tuple[KeyRecord, str]:
        """Makes a key; returns its row and the key itself, which is kept nowhere.

        Raises:
            StorageError: the database cannot be used now.
        """
        key, key_id = new_key(), secrets.token_hex(ID_BYTES)
        row = {
            "id": key_id, "name": wanted.name, "key_hash": key_hash(key), "prefix": key[:PREFIX_CHARS],
            "scopes": list(wanted.scopes), "rate_per_minute": wanted.rate_per_minute,
            "quota_per_day": wanted.quota_per_day, "usage_day": 0, "usage_count": 0,
            "created_at": at, "expires_at": wanted.expires_at,
        }  # fmt: skip
        await self._database.write(lambda session: session.execute(insert(ApiKey).values(**row)))
        return await self._one(key_id), key

    async def all(self) -> list[KeyRecord]:
        """Every key, oldest first, revoked and expired ones too.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = select(*_COLUMNS).order_by(ApiKey.created_at, ApiKey.id)

        async def read(session: AsyncSession) -> list[KeyRecord]:
            return [_record(row) for row in await session.execute(query)]

        return await self._database.read(read)

    async def revoke(self, key_id: str, *, at: float) -> KeyRecord:
        """Ends a key; one that is revoked already stays as it is.

        Raises:
            StorageError: the database cannot be used now.
            UnknownKeyError: there is no such key.
        """
        seen = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        ending = seen.values(revoked_at=at)
        await self._database.write(lambda session: session.execute(ending))
        return await self._one(key_id)

    async def forget(self, key_id: str) -> KeyRecord:
        """Deletes a key's row; where it was the last one, no key is asked for any more.

        Raises:
            StorageError: the database cannot be used now.
            UnknownKeyError: there is no such key.
        """
        found = await self._one(key_id)
        forgetting = delete(ApiKey).where(ApiKey.id == key_id)
        await self._database.write(lambda session: session.execute(forgetting))
        return found

    async def add_usage(self, usage: Mapping[str, Usage]) -> None:
        """Adds what keys, by id, have used; several processes may do so at once.

        Raises:
            StorageError: the database cannot be used now; nothing was added.
        """

        async def add(session: AsyncSession) -> None:
            for key_id in sorted(usage):  # in one order, so that two processes never wait for each other
                used = usage[key_id]
                count = case(
                    (ApiKey.usage_day == used.day, ApiKey.usage_count + used.texts),
                    (ApiKey.usage_day < used.day, used.texts),
                    else_=ApiKey.usage_count,
                )
                newest = case((ApiKey.usage_day < used.day, used.day), else_=ApiKey.usage_day)
                adding = update(ApiKey).where(ApiKey.id == key_id)
                await session.execute(
                    adding.values(usage_count=count, usage_day=newest, last_used_at=used.at)
                )

        await self._database.write(add)

    async def _one(self, key_id: str) -> KeyRecord:
        query = select(*_COLUMNS).where(ApiKey.id == key_id)

        async def read(session: AsyncSession) -> Sequence[object] | None:
            return (await session.execute(query)).first()

        row = await self._database.read(read)
        if row is None:
            raise UnknownKeyError(f"There is no API key {key_id[:64]!r}.")
        return _record(row)


def _record(row: Sequence[object]) -> KeyRecord:
    values = dict(zip(KeyRecord.__dataclass_fields__, row, strict=True))
    scopes = values["scopes"]
    assert isinstance(scopes, list)  # noqa: S101 - what `create` wrote
    return KeyRecord(**values | {"scopes": tuple(scopes)})  # type: ignore[arg-type]

"""Versions of the router's weights: made as candidates, promoted, taken back."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Select, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.models import RouterVersion
from moe_router.errors import UnknownVersionError, VersionConflictError

PROMOTED_MEANWHILE = "Another version was promoted at the same time."
ANY: Final = -1
"""Whichever version is live."""
VersionState = Literal["live", "candidate", "retired", "rejected"]


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A version without its weights; times are Unix times in seconds."""

    id: int
    state: VersionState
    created_at: float
    promoted_at: float | None
    parent_id: int | None
    meta: dict[str, Any]
    metrics: dict[str, Any]


class RouterVersions:
    """The table `router_versions`; where none is live, the shipped weights are in force."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        weights: bytes,
        *,
        meta: Mapping[str, Any],
        metrics: Mapping[str, Any],
        parent_id: int | None,
        at: float,
        state: Literal["candidate", "rejected"] = "candidate",
    ) -> int:
        """Stores weights (safetensors) and returns the id of the version, from 1.

        Raises:
            StorageError: the database cannot be used now.
        """
        row = {"weights": weights, "meta": dict(meta), "metrics": dict(metrics), "parent_id": parent_id}
        made = insert(RouterVersion).values(**row, created_at=at, state=state).returning(RouterVersion.id)

        async def write(session: AsyncSession) -> int:
            return (await session.execute(made)).scalar_one()

        return await self._database.write(write)

    async def live(self) -> VersionInfo | None:
        """The version in force; None where the shipped weights are.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = _infos().where(RouterVersion.state == "live")

        async def read(session: AsyncSession) -> VersionInfo | None:
            row = (await session.execute(query)).first()
            return _info(row) if row is not None else None

        return await self._database.read(read)

    async def weights(self, version_id: int) -> bytes:
        """The weights of a version, as safetensors.

        Raises:
            StorageError: the database cannot be used now.
            UnknownVersionError: there is no such version.
        """
        query = select(RouterVersion.weights).where(RouterVersion.id == version_id)
        found = await self._database.read(lambda session: session.scalar(query))
        if found is None:
            raise UnknownVersionError(version_id)
        return found

    async def list(self, limit: int = 100) -> list[VersionInfo]:
        """The newest versions, and the live one however old it is; newest first.

        Raises:
            StorageError: the database cannot be used now.
        """
        query = _infos().order_by(RouterVersion.id.desc()).limit(limit)
        live = _infos().where(RouterVersion.state == "live")

        async def read(session: AsyncSession) -> builtins.list[VersionInfo]:
            found = [_info(row) for row in await session.execute(query)]
            known = {info.id for info in found}
            return [*found, *(_info(row) for row in await session.execute(live) if row.id not in known)]

        return await self._database.read(read)

    async def promote(self, version_id: int, *, at: float, over: int | None = ANY) -> VersionInfo:
        """Makes a version the live one; the one before retires.

        Args:
            version_id: of the version.
            at: Unix time in seconds.
            over: the version that must be live until now, None for the shipped weights; ANY for whichever is.

        Raises:
            StorageError: the database cannot be used now.
            UnknownVersionError: there is no such version.
            VersionConflictError: another one than `over` is live, or another process promoted at the same
                time.
        """

        async def write(session: AsyncSession) -> VersionInfo:
            await self._known(session, version_id)
            live = await session.scalar(select(RouterVersion.id).where(RouterVersion.state == "live"))
            if over not in (ANY, live):
                raise VersionConflictError(f"{_named(live)} is live by now, not {_named(over)}.")
            if live is not None:
                await _end(session, live, "retired")
            become = update(RouterVersion).where(RouterVersion.id == version_id)
            await session.execute(become.values(state="live", promoted_at=at))
            return _info((await session.execute(_infos().where(RouterVersion.id == version_id))).one())

        try:
            return await self._database.write(write)
        except IntegrityError as error:
            raise VersionConflictError(PROMOTED_MEANWHILE) from error

    async def reject(self, version_id: int, *, metrics: Mapping[str, Any] | None = None) -> None:
        """Marks a candidate as refused by the guard, with what it measured.

        Raises:
            StorageError: the database cannot be used now.
            UnknownVersionError: there is no such version.
        """
        values: dict[str, Any] = {"state": "rejected"}
        if metrics is not None:
            values["metrics"] = dict(metrics)

        async def write(session: AsyncSession) -> None:
            await self._known(session, version_id)
            await session.execute(
                update(RouterVersion).where(RouterVersion.id == version_id).values(**values)
            )

        await self._database.write(write)

    async def rollback(self, expected: int | None = None) -> VersionInfo | None:
        """Takes the live version back; the one live before it is again. None: the shipped weights are.

        The version taken back counts as rejected, so that no later rollback returns to it; it can be
        promoted again by its number.

        Args:
            expected: the version that is thought to be live; None takes back whichever is.

        Raises:
            StorageError: the database cannot be used now.
            VersionConflictError: none is live or not the expected one, or another process promoted at the
                same time.
        """
        earlier = (
            _infos()
            .where(RouterVersion.state == "retired", RouterVersion.promoted_at.is_not(None))
            .order_by(RouterVersion.promoted_at.desc())
            .limit(1)
        )

        async def write(session: AsyncSession) -> VersionInfo | None:
            live = (await session.execute(_infos().where(RouterVersion.state == "live"))).first()
            if live is None:
                raise VersionConflictError("The shipped weights are in force: there is nothing to take back.")
            if expected is not None and live.id != expected:
                raise VersionConflictError(f"Version {live.id} is live, not {expected}.")
            await _end(session, live.id, "rejected")
            before = (await session.execute(earlier)).first()
            if before is None:
                return None
            become = update(RouterVersion).where(RouterVersion.id == before.id)
            await session.execute(become.values(state="live"))
            return _info((await session.execute(_infos().where(RouterVersion.id == before.id))).one())

        try:
            return await self._database.write(write)
        except IntegrityError as error:
            raise VersionConflictError(PROMOTED_MEANWHILE) from error

    @staticmethod
    async def _known(session: AsyncSession, version_id: int) -> None:
        # Locked on PostgreSQL; SQLite's writers are one at a time anyway.
        query = select(RouterVersion.id).where(RouterVersion.id == version_id).with_for_update()
        if await session.scalar(query) is None:
            raise UnknownVersionError(version_id)


def _named(version: int | None) -> str:
    return "the package's own router" if version is None else f"version {version}"


async def _end(session: AsyncSession, live: int, state: VersionState) -> None:
    """Ends the version that was seen to be live; on PostgreSQL another may be by now."""
    seen = update(RouterVersion).where(RouterVersion.id == live, RouterVersion.state == "live")
    ended = await session.execute(seen.values(state=state).returning(RouterVersion.id))
    if ended.first() is None:
        raise VersionConflictError(PROMOTED_MEANWHILE)


def _infos() -> Select[Any]:
    """All columns but the weights, which are a few hundred kilobytes each."""
    return select(*(getattr(RouterVersion, name) for name in VersionInfo.__dataclass_fields__))


def _info(row: Any) -> VersionInfo:
    return VersionInfo(**row._mapping)

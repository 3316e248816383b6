"""A look into a database past the code under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database


@asynccontextmanager
async def session_on(database: Database) -> AsyncIterator[AsyncSession]:
    """A session that nothing guards: a test cancels none."""
    await database.ready()
    async with AsyncSession(database._engine, expire_on_commit=False) as session:
        yield session

"""Who a caller is, as a hash that tells neither a key nor an address."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.identity import name_by
from app.storage.models import Secret

SALT = "caller"
SALT_BYTES = 32


class Callers:
    """Hashes identities with a secret of the database, made at the first need."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._salt = b""
        self._generation: int | None = None

    async def hash_of(self, identity: str) -> str:
        """The hash that stands for an identity: 64 hexadecimal digits.

        Raises:
            StorageError: the secret cannot be read now.
        """
        if self._generation != self._database.generation:
            generation = self._database.generation
            self._salt = await self._load()
            self._generation = generation
            name_by(self._salt)
        return hmac.new(self._salt, identity.encode(), hashlib.sha256).hexdigest()

    async def _load(self) -> bytes:
        query = select(Secret.value).where(Secret.name == SALT)
        made = self._database.insert(Secret).values(name=SALT, value=secrets.token_bytes(SALT_BYTES))

        async def make(session: AsyncSession) -> bytes:
            await session.execute(made.on_conflict_do_nothing(index_elements=[Secret.name]))
            return (await session.execute(query)).scalar_one()

        # Looked for first: what is there is read although somebody writes just now.
        found = await self._database.read(lambda session: session.scalar(query))
        return found if found is not None else await self._database.write(make)

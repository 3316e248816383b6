"""What callers say about answers: one row for each caller and request."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.database import Database
from app.storage.models import Feedback
from app.storage.purging import purge_rows
from app.storage.records import FeedbackRecord
from moe_router.errors import UnknownRequestError


class FeedbackRows:
    """The table `feedback`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, record: FeedbackRecord) -> bool:
        """Writes or replaces the caller's row about the request, durably; True where it replaced one.

        Raises:
            StorageError: the database cannot be used now; nothing was written.
            UnknownRequestError: the decision has expired just now.
        """
        said = {
            "decision_id": record.decision_id,
            "correct_task": record.correct_task,
            "correct_label": record.correct_label,
            "score": record.score,
            "updated_at": record.at,
        }
        key = {"caller": record.caller_hash, "request_id": record.request_id}
        row = self._database.insert(Feedback).values(**key, **said, created_at=record.at)
        put = row.on_conflict_do_update(index_elements=[Feedback.caller, Feedback.request_id], set_=said)
        own = select(Feedback.id).where(
            Feedback.caller == record.caller_hash, Feedback.request_id == record.request_id
        )

        async def write(session: AsyncSession) -> bool:
            replaced = (await session.scalar(own)) is not None
            await session.execute(put)
            return replaced

        try:
            return await self._database.write(write)
        except IntegrityError as error:
            raise UnknownRequestError("The record of this request has expired.") from error

    async def purge(self, before: float) -> int:
        """Forgets what is older than a Unix time and whose decision is gone, without which it says nothing.

        Returns how many.

        Raises:
            StorageError: the database cannot be used now.
        """
        useless = select(Feedback.id).where(Feedback.decision_id.is_(None), Feedback.updated_at < before)
        return await purge_rows(self._database, Feedback, useless)

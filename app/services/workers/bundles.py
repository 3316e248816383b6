"""Joins what the items of a batch ask of one worker at the same moment into one request to it.

Each item keeps its own place, deadline, checks and retries; what they share is the exchange, which costs both
sides as much as everything else that they do for an item. It is answered when its slowest item is, so only
items that should take as long and may take as long share one: of one task, with deadlines in one octave.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from app.services.workers.client import Question, WorkerClient
from app.services.workers.faults import Fault
from app.services.workers.worker import Worker
from moe_router.contracts import ExpertAnswer

MOST_ITEMS = 16
"""Items of one request. It is answered when the last of them is: more would make the first wait too long."""
MOST_BYTES = 2**20
"""Of their bodies together; workers bound what they read."""


_Key = tuple[Worker, str, str, int]
"""Whom to ask, for whom, what task, and the octave of the time for it."""


@dataclass(slots=True, eq=False)
class _Bundle:
    """Questions for one worker that have not been sent yet, or whose answers are not there yet."""

    questions: list[Question] = field(default_factory=list)
    answers: list[asyncio.Future[ExpertAnswer]] = field(default_factory=list)
    size: int = 0
    sending: asyncio.Task[None] | None = None

    def fits(self, question: Question) -> bool:
        """Whether one more may be added."""
        return len(self.questions) < MOST_ITEMS and self.size + len(question.body) <= MOST_BYTES


class Bundles:
    """Used from one event loop."""

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._open: dict[_Key, _Bundle] = {}

    async def ask(self, worker: Worker, question: Question, task_key: str) -> ExpertAnswer:
        """As `WorkerClient.classify`, with what is asked of the worker in the same turn of the event loop.

        A question whose asker is cancelled is not waited for; the request ends when nobody waits any more.

        Raises:
            Fault: the request failed, one and the same for all, or this item of it.
        """
        bundle = self._bundle_for(worker, question, task_key)
        answer: asyncio.Future[ExpertAnswer] = asyncio.get_running_loop().create_future()
        bundle.questions.append(question)
        bundle.answers.append(answer)
        bundle.size += len(question.body)
        try:
            return await answer
        finally:
            if bundle.sending is not None and all(known.cancelled() for known in bundle.answers):
                bundle.sending.cancel()

    def _bundle_for(self, worker: Worker, question: Question, task_key: str) -> _Bundle:
        key = worker, question.caller, task_key, math.frexp(question.timeout_s)[1]
        bundle = self._open.get(key)
        if bundle is None or not bundle.fits(question):
            bundle = self._open[key] = _Bundle()
            asyncio.get_running_loop().call_soon(self._send, key, bundle)
        return bundle

    def _send(self, key: _Key, bundle: _Bundle) -> None:
        if self._open.get(key) is bundle:
            del self._open[key]
        if not all(answer.cancelled() for answer in bundle.answers):
            bundle.sending = asyncio.create_task(self._exchange(key[0], bundle))

    async def _exchange(self, worker: Worker, bundle: _Bundle) -> None:
        said: list[ExpertAnswer | Fault]
        try:
            said = await self._client.classify_all(worker, bundle.questions)
        except Fault as fault:
            said = [fault] * len(bundle.questions)
        except Exception as error:  # noqa: BLE001  whatever it was, each asker must hear of it
            for answer in bundle.answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, found in zip(bundle.answers, said, strict=True):
            if answer.done():
                continue
            if isinstance(found, Fault):
                answer.set_exception(found)
            else:
                answer.set_result(found)

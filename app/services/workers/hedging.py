"""Hedging: a call that takes long gets a second one at another worker; the first good answer wins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from app.services.waiting import Wait, WaitingRoom
from app.services.workers.budget import RetryBudget
from app.services.workers.faults import Fault
from app.services.workers.tried import Tried
from app.services.workers.worker import Worker
from moe_router import tracing
from moe_router.contracts import ExpertAnswer
from moe_router.errors import MoleError
from moe_router.members import StepMembers

Answered = tuple[str, ExpertAnswer]
HedgeOutcome = Literal["won", "lost", "failed", "cancelled"]
"""Whose answer was taken: the hedge's, the first call's, nobody's; or the request was cancelled."""


class Hedging:
    """Asks twice where once takes long, which is sound since classifying changes nothing.

    A call that fails before its hedge is due is left to the failover. While both run, a fault that another
    worker may mend leaves the matter to the other call; any other fault ends both.

    Args:
        after_s: how long one worker is waited for before another is asked as well, in seconds.
        budget: of retries. A hedge takes a token of it, also where it is the request's only one.
        metrics: where hedges are counted.
    """

    def __init__(self, after_s: float, budget: RetryBudget, metrics: Metrics) -> None:
        self._after_s = after_s
        self._budget = budget
        self._metrics = metrics

    async def ask(
        self,
        first: Worker,
        send: Callable[[Worker], Awaitable[ExpertAnswer]],
        take: Callable[[], Worker | Wait],
        room: WaitingRoom[Worker],
        tried: Tried,
        call: Call,
    ) -> Answered:
        """The first good answer; the other call is cancelled, and with it the work at its worker.

        Args:
            first: the worker to ask first, a call at it begun.
            send: one attempt at a worker.
            take: begins a call at another worker, as for `WaitingRoom.enter`.
            room: where requests wait for the model's workers; the hedge leaves it itself.
            tried: workers asked so far; the hedge's is added.
            call: is told of the hedge, and how long both took together.

        Raises:
            Fault: of the call that failed last, or that nobody can mend.
            MoleError: the time for the whole request is up.
        """
        began, waited_ms = time.perf_counter(), call.worker_ms
        calls = [asyncio.ensure_future(_traced(send, first, hedge=False))]
        outcome: HedgeOutcome = "cancelled"
        try:
            await asyncio.wait(calls, timeout=self._after_s)
            other = None if calls[0].done() else self._spare(room, call.caller, take)
            if other is not None:
                tried.add(other)
                calls.append(asyncio.ensure_future(_traced(send, other, hedge=True)))
                calls[1].add_done_callback(lambda _: room.leave(call.caller))
                ms = (time.perf_counter() - began) * 1000
                step: StepMembers = {
                    "step": "hedge", "choice": other.worker_id, "probability": None, "ms": ms,
                }  # fmt: skip
                call.hedges += (step,)
            best = await self._first_good(calls)
            outcome = "lost" if best is calls[0] else "won"
            return best.result()
        except (Fault, MoleError):
            outcome = "failed"
            raise
        finally:
            if len(calls) > 1:
                self._metrics.count_hedge(outcome)
            await _end(calls)
            call.worker_ms = waited_ms + (time.perf_counter() - began) * 1000

    def _spare(
        self, room: WaitingRoom[Worker], caller: str, take: Callable[[], Worker | Wait]
    ) -> Worker | None:
        """A worker for the hedge, granted and paid for; None where there had better be none.

        A hedge waits for no place and takes nobody's, and a worker on trial is no help against slowness.
        """
        try:
            worker = room.try_enter(caller, take)
        except MoleError:  # there is no other
            return None
        if worker is None:
            return None
        if worker.breaker.open_until is None:
            if self._budget.spend():
                return worker
            self._metrics.count_hedge("withheld")
        worker.give_back(caller)
        room.leave(caller)
        return None

    async def _first_good(self, calls: Sequence[asyncio.Future[Answered]]) -> asyncio.Future[Answered]:
        """The call that was answered first.

        Raises:
            Fault: none was.
            MoleError: the same, for no fault of a worker.
        """
        pending = set(calls)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            errors = {call: call.exception() for call in calls if call in done}
            for call, error in errors.items():  # of two at once, the first that was sent
                if error is None:
                    return call
            faults = [error for error in errors.values() if isinstance(error, Fault) and error.mendable]
            for error in errors.values():
                if error is not None and error not in faults:
                    raise error
            if not pending:
                raise faults[-1]
            self._metrics.count_failover(faults[0].outcome)


def attempt_span(worker: Worker, *, hedge: bool | None = None) -> AbstractContextManager[tracing.Span]:
    """The span of one attempt; `hedge` tells which of two it is, None that there is but one."""
    told: dict[str, str | bool] = {"mole.worker": worker.worker_id}
    if hedge is not None:
        told["mole.hedge"] = hedge
    return tracing.span("POST /api/v1/expert/classify", "client", attributes=told)


async def _traced(
    send: Callable[[Worker], Awaitable[ExpertAnswer]], worker: Worker, *, hedge: bool
) -> Answered:
    with attempt_span(worker, hedge=hedge):
        return worker.worker_id, await send(worker)


async def _end(calls: Sequence[asyncio.Future[Answered]]) -> None:
    """Cancels what still runs, and waits until it has let go of its worker and its connection."""
    running = [call for call in calls if not call.done()]
    for call in running:
        call.cancel()
    if running:
        await asyncio.wait(running)
    for call in calls:
        if not call.cancelled():
            call.exception()  # seen: asyncio would tell the log of one that nobody asked for

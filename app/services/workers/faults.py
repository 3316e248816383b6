"""What can go wrong between coordinator and worker, and what it means for the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.services.ports import AttemptTimeoutError
from app.services.workers.connection import (
    AnswerTooLongError,
    ClosedError,
    ConnectError,
    NotHttpError,
    TruncatedError,
)
from moe_router.errors import (
    DeadlineError,
    MissingFieldError,
    MoleError,
    NoWorkerError,
    OverloadedError,
    RequestError,
    TextTooLongError,
    UnknownExpertError,
    UnknownTaskError,
    UnsupportedLanguageError,
    WorkerAnswerError,
)

logger = logging.getLogger(__name__)

Outcome = Literal[
    "ok", "refused", "timeout", "reset", "truncated", "invalid", "error", "unavailable", "overloaded",
    "rejected", "cancelled",
]  # fmt: skip
"""How a call ended; the values of a metric's label."""

TOLD_AGAIN_S = 60.0
MOST_TOLD = 256

Ejects = Literal["at once", "if repeated", "no"]
BEHIND = (UnknownTaskError.slug, UnknownExpertError.slug, UnsupportedLanguageError.slug)
"""Of a worker that has not taken an edit of the registry: by ours the request has been found right."""


class Told:
    """What was logged of late: requests of a broken expert are refused by the thousand, for one reason.

    Args:
        log: where it goes.
        clock: seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._at: dict[int, float] = {}

    def warn(self, message: str, *what: str) -> None:
        """Logs it, unless it was within the last minute and not forgotten since for newer things."""
        now, key = self._clock(), hash(what)
        at = self._at.get(key)
        if at is not None and now - at < TOLD_AGAIN_S:
            return
        self._at.pop(key, None)
        self._at[key] = now
        if len(self._at) > MOST_TOLD:
            del self._at[next(iter(self._at))]
        self._log.warning(message, *what)


_told = Told(logger)


@dataclass(eq=False)
class Fault(Exception):  # noqa: N818 - the pair of Outcome
    """A call that failed, and whether another replica may mend it."""

    outcome: Outcome
    error: MoleError
    ejects: Ejects = "no"
    retry_after_s: float | None = None
    noted: bool = False
    """Whether the worker's breaker knows of it: several items of a batch may share one."""

    @property
    def mendable(self) -> bool:
        """Whether another worker may do better."""
        return not isinstance(self.error, RequestError)


def of_transport(error: Exception, worker_id: str) -> Fault:
    """Translates what an exchange raised."""
    match error:
        case ConnectError():
            return Fault("refused", NoWorkerError(f"{worker_id} cannot be reached."), "at once")
        case TruncatedError():
            return Fault("truncated", WorkerAnswerError(f"{worker_id} broke off in its answer."), "at once")
        case AnswerTooLongError():
            return Fault("invalid", WorkerAnswerError(f"{worker_id} answered with too much."), "if repeated")
        case NotHttpError() | ValueError():
            return Fault("invalid", WorkerAnswerError(f"{worker_id} does not speak HTTP."), "if repeated")
        case ClosedError() | _:
            return Fault("reset", NoWorkerError(f"{worker_id} closed the connection."), "at once")


def of_status(status: int, slug: str, detail: str, retry_after_s: float | None, worker_id: str) -> Fault:
    """Translates an answer that is no 200; `slug` and `detail` come from its problem document."""
    if status == 503 and slug == OverloadedError.slug:
        return Fault("overloaded", OverloadedError(f"{worker_id} is full."), "no", retry_after_s)
    if status == 503 and slug == NoWorkerError.slug:  # one expert of it is broken or missing, not the worker
        _told.warn("%s cannot serve a task: %s", worker_id, detail)  # it names files and addresses
        return Fault("unavailable", NoWorkerError(f"{worker_id} cannot serve this task now."), "no")
    if status == 503:
        return Fault("unavailable", NoWorkerError(f"{worker_id} is not ready."), "at once", retry_after_s)
    if status == 504 and slug == DeadlineError.slug:
        return Fault("timeout", AttemptTimeoutError(f"{worker_id} ran out of time."), "no")
    if status == 400 and slug in BEHIND:
        return Fault("unavailable", NoWorkerError(f"{worker_id} does not serve it: {detail}"), "no")
    if status == 400 and slug == MissingFieldError.slug:
        return Fault("rejected", MissingFieldError(detail))
    if status == 413:
        return Fault("rejected", TextTooLongError(detail))
    if status == 400 and slug == RequestError.slug:
        return Fault("rejected", RequestError(detail))
    if status in (401, 403):
        return Fault("error", WorkerAnswerError(f"{worker_id} refuses our token."), "if repeated")
    return Fault("error", WorkerAnswerError(f"{worker_id} answered with status {status}."), "if repeated")


def timed_out(worker_id: str, ejects: Ejects) -> Fault:
    """A whole attempt's time passed, headers and body."""
    return Fault("timeout", AttemptTimeoutError(f"{worker_id} did not answer in time."), ejects)


def invalid(error: WorkerAnswerError) -> Fault:
    """A 200 whose body is no valid answer."""
    return Fault("invalid", error, "if repeated")

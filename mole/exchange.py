"""How a call is carried out, apart from doing any I/O: what to send, when to pause, what came of it.

A conversation is a generator. It yields a `Call` to be sent, and is given the `Reply` or the
MoleConnectionError that came back; or it yields a `Pause` to be slept; it returns the result.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from mole.calls import Call
from mole.errors import MoleAPIError, MoleConnectionError
from mole.retry import RETRIED_STATUSES, Patience, Retry

if TYPE_CHECKING:
    from moe_router.contracts import Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, read whole."""

    status: int
    content: bytes
    retry_after: str | None = None


Step = Call[Any] | Pause
Outcome = Reply | MoleConnectionError | None
Conversation = Generator[Step, Outcome, T]


def perform(call: Call[T], retry: Retry, url: str, patience: Patience | None = None) -> Conversation[T]:
    """Sends a call until it is answered, or trying again is of no use.

    Args:
        call: what to send.
        retry: when to send it again.
        url: where the service is, for errors.
        patience: since when the caller waits; since now where it is None.

    Raises:
        MoleAPIError: the coordinator answered with problem details.
        MoleConnectionError: it did not answer, or something else did.
    """
    patience = patience or Patience()
    attempt = 1
    while True:
        outcome = yield call
        fault = _fault(outcome, call)
        if fault is None:
            assert isinstance(outcome, Reply)  # noqa: S101 - a call that is sent is replied to
            return _read(call, outcome, url)
        pause = _pause(fault, attempt, retry) if call.repeatable else None
        status = fault.status if isinstance(fault, MoleAPIError) else None
        if pause is None or not patience.allows(pause, call.granted_s, status):
            raise fault
        yield Pause(pause)
        attempt += 1


def problem_of(status: int, content: bytes) -> Problem:
    """The problem details of an error response; a proxy's own page is one without details."""
    from pydantic import ValidationError

    from moe_router.contracts import Problem

    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        return Problem(
            type="about:blank",
            title=phrase(status),
            status=status,
            detail="The answer carries no problem details.",
        )


def phrase(status: int) -> str:
    """The standard words for a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def seconds(retry_after: str | None, now: datetime | None = None) -> float | None:
    """A Retry-After, which is seconds or a date (RFC 9110); None where there is none that can be read."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _fault(outcome: Outcome, call: Call[Any]) -> MoleAPIError | MoleConnectionError | None:
    if isinstance(outcome, Reply):
        if outcome.status < HTTPStatus.BAD_REQUEST or call.any_status:
            return None
        return MoleAPIError(problem_of(outcome.status, outcome.content), seconds(outcome.retry_after))
    return outcome


def _pause(fault: MoleAPIError | MoleConnectionError, attempt: int, retry: Retry) -> float | None:
    if isinstance(fault, MoleConnectionError):
        return retry.pause(attempt) if fault.unsent or fault.broken else None
    return retry.pause(attempt, fault.retry_after_s) if fault.status in RETRIED_STATUSES else None


def _read(call: Call[T], reply: Reply, url: str) -> T:
    try:
        return call.read(reply.content)
    except (ValueError, KeyError, TypeError) as error:  # pydantic's is a ValueError
        raise MoleConnectionError(url, f"something else answers there (HTTP {reply.status})") from error

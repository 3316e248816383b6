"""What the clients raise.

MoleClientError
├── MoleConnectionError   nothing that speaks MoLE answers, or it stopped in the middle
└── MoleAPIError          the coordinator answered with problem details (RFC 9457)

ValueError
└── UnusableKeyError      the API key cannot be sent
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_router.contracts import Problem


class MoleClientError(Exception):
    """Root of what the clients raise."""


class MoleConnectionError(MoleClientError):
    """Nothing that speaks MoLE answers at the address, or it stopped answering in the middle.

    Attributes:
        url: Where it was looked for.
        reason: What went wrong.
        unsent: Whether no connection was made, so that the service cannot have seen the request.
        broken: Whether a connection broke off, so that the service may have seen the request.
    """

    def __init__(self, url: str, reason: str, *, unsent: bool = False, broken: bool = False) -> None:
        super().__init__(f"no MoLE service answers at {url}: {reason}")
        self.url = url
        self.reason = reason
        self.unsent = unsent
        self.broken = broken


class MoleAPIError(MoleClientError):
    """The coordinator refused the request or failed.

    Attributes:
        problem: The problem details, with `type`, `title`, `status`, `detail`, `request_id` and whatever
            the type adds.
        status: The HTTP status.
        retry_after_s: Seconds after which the service asks to be tried again, where it says so.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.title} ({problem.status}): {problem.detail}")
        self.problem = problem
        self.status = problem.status
        self.retry_after_s = retry_after_s


class UnusableKeyError(ValueError):
    """The API key cannot stand in a header; the message does not quote it."""

    def __init__(self) -> None:
        super().__init__("the API key holds a blank or a character that is no visible ASCII")

"""One request on its way through the service: its id, what it carries on, what it cost."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field

from starlette.types import Scope

from app.services.keyring import CallerKey
from app.storage.identity import address_identity
from app.storage.key_records import ADMIN
from moe_router.contracts import HEADER_REQUEST_ID, MAX_HEADER_BYTES
from moe_router.errors import HeadersTooLongError

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
SANE_TRACE = re.compile(r"[\x20-\x7e]{1,512}")
PASSED_ON = ("traceparent", "tracestate")
NO_EXPERT = "none"
IDS_AT_ONCE = 64
_ID = HEADER_REQUEST_ID.lower().encode()
_PASSED_ON = tuple(name.encode() for name in PASSED_ON)


class _Ids:
    """Request ids: UUIDs of version 7 (RFC 9562, section 5.7) without hyphens.

    They begin with the time, so that new ones stand side by side in the database's index: of ids that are
    random from the start each touches a page of its own, and decisions take twice as long to write.
    """

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def new(self) -> str:
        """One that nobody can foresee: 72 of its bits are random."""
        if not self._drawn:  # a call of the system gives many
            drawn = os.urandom(9 * IDS_AT_ONCE).hex()
            self._drawn = [drawn[start : start + 18] for start in range(0, len(drawn), 18)]
        random = self._drawn.pop()
        return f"{time.time_ns() // 1_000_000:012x}7{random[:3]}8{random[3:]}"


_ids = _Ids()


@dataclass(slots=True)
class Exchange:
    """What the layers of the service know about one request."""

    request_id: str
    path: str = ""
    """below the mount point, see `route_path`"""
    trace: dict[str, str] = field(default_factory=dict)
    caller: str = address_identity(None)
    """who asks; see `Call.caller`"""
    key: CallerKey | None = None
    """the caller's API key, where keys are asked for"""
    started: float = field(default_factory=time.perf_counter)
    body: bytes = b""
    status: int | None = None
    expert: str = NO_EXPERT
    worker_ms: float = 0.0
    hedged: bool = False

    @property
    def is_admin(self) -> bool:
        """Whether the caller's key sees what is other callers'."""
        return self.key is not None and self.key.record.may(ADMIN)

    def take_texts(self, texts: int) -> None:
        """Counts texts beyond the request's first against the quota of the caller's key.

        Raises:
            QuotaExceededError: so many are not left of the day's.
        """
        if self.key is not None and texts > 0:
            self.key.take_texts(texts)

    def check_texts(self, texts: int) -> None:
        """Whether so many are left of the quota of the caller's key; counts none.

        Raises:
            QuotaExceededError: they are not.
        """
        if self.key is not None:
            self.key.check_texts(texts)

    def give_back_texts(self, texts: int) -> None:
        """Counts off texts that were taken of that quota for nothing."""
        if self.key is not None:
            self.key.give_back_texts(texts)

    def elapsed_ms(self) -> float:
        """Milliseconds since the request's head arrived."""
        return (time.perf_counter() - self.started) * 1000


def open_exchange(scope: Scope) -> Exchange:
    """Starts an exchange; a sane X-Request-ID of the caller is taken, else one is made."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    given = headers.get(_ID)
    request_id = given.decode("latin-1") if given is not None else ""
    if not SANE_ID.fullmatch(request_id):
        request_id = _ids.new()
    trace = {}
    for name in _PASSED_ON:
        if name in headers and SANE_TRACE.fullmatch(value := headers[name].decode("latin-1")):
            trace[name.decode()] = value
    client = scope.get("client")
    caller = address_identity(client[0] if client else None)
    exchange = scope["mole"] = Exchange(request_id, route_path(scope), trace, caller)
    return exchange


def route_path(scope: Scope) -> str:
    """The path below the mount point (`uvicorn --root-path`), as the router sees it."""
    path: str = scope["path"]
    root = mount_point(scope)
    return path[len(root) :] if root and path.startswith(root + "/") else path


def mount_point(scope: Scope) -> str:
    """What a caller's paths begin with before ours (`uvicorn --root-path`); empty without one."""
    root: str = scope.get("root_path", "")
    return root


def check_headers(scope: Scope) -> None:
    """Bounds the header fields.

    Raises:
        HeadersTooLongError: they are longer than MAX_HEADER_BYTES together.
    """
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLongError(f"The header fields are longer than {MAX_HEADER_BYTES} bytes.")


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that the envelope opened."""
    exchange: Exchange = scope["mole"]
    return exchange

"""Hands the head and the body of an answer to the system together.

uvicorn writes them one by one. Of a short answer that is a twelfth of all that a request costs us: two system
calls and two packets, and the client wakes up twice. Header fields of ours join the head here, too: uvicorn
would look through each with two regular expressions. Only uvicorn's own `send` is known here; behind any
other one answers go out as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.types import Send

from app.asgi.security_headers import Header

LINE_END, HEAD_END = b"\r\n", b"\r\n\r\n"
CYCLES = "uvicorn.protocols.http.httptools_impl"
"""Where uvicorn's cycles of a request are, unless it is told to use another parser."""


class HeldWrites:
    """Stands for a connection's transport and keeps what is written to it, from now until `let_go`."""

    __slots__ = ("_cycle", "_lines", "_parts", "_transport")

    def __init__(self, cycle: Any, lines: bytes) -> None:
        """Takes the place of the transport of uvicorn's cycle of one request; adds lines to its head."""
        self._cycle = cycle
        self._lines = lines
        self._transport = cycle.transport
        self._parts: list[bytes] = []
        cycle.transport = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keeps it."""
        if self._lines:  # what is written first is the head
            head, _, rest = data.partition(HEAD_END)
            data = b"".join((head, LINE_END, self._lines, LINE_END, rest))
            self._lines = b""
        self._parts.append(data)

    def close(self) -> None:
        """Ends the connection, which must not lose what is kept."""
        self.let_go()
        self._transport.close()

    def let_go(self) -> None:
        """Writes what is kept; from now on everything is written at once."""
        if self._parts and not self._transport.is_closing():
            self._transport.writelines(self._parts)
        self._parts = []
        self._cycle.transport = self._transport


def hold_writes(send: Send, fields: Iterable[Header]) -> HeldWrites | None:
    """Begins to hold what the server's `send` writes; None where it is not known how.

    Args:
        send: of the server.
        fields: are added to the head.

    Raises:
        ValueError: a field holds the end of a line.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle).__module__ != CYCLES:
        return None
    lines = [b"%b: %b\r\n" % field for field in fields]
    joined = b"".join(lines)
    if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines):
        raise ValueError("a header holds the end of a line")
    return HeldWrites(cycle, joined)

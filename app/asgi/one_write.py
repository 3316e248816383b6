"""Hands the head and the body of an answer to the system together.

uvicorn writes them one by one. Of a short answer that is a twelfth of all that a request costs us: two system
calls and two packets, and the client wakes up twice. Only uvicorn's own `send` is known here; behind any
other one answers go out as they are.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Send

CYCLES = "uvicorn.protocols.http.httptools_impl"
"""Where uvicorn's cycles of a request are, unless it is told to use another parser."""


class HeldWrites:
    """Stands for a connection's transport and keeps what is written to it, from now until `let_go`."""

    __slots__ = ("_cycle", "_parts", "_transport")

    def __init__(self, cycle: Any) -> None:
        """Takes the place of the transport of uvicorn's cycle of one request."""
        self._cycle = cycle
        self._transport = cycle.transport
        self._parts: list[bytes] = []
        cycle.transport = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keeps it."""
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


def hold_writes(send: Send) -> HeldWrites | None:
    """Begins to hold what the server's `send` writes; None where it is not known how."""
    cycle = getattr(send, "__self__", None)
    return HeldWrites(cycle) if type(cycle).__module__ == CYCLES else None

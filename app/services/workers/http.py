"""HTTP towards the workers: a pool of kept connections, asked without any layer between.

What a general client does beside (cookies, redirects, proxies, hooks) costs more than the exchange
itself, and a call of a worker needs none of it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from app.services.workers.connection import ConnectError, Connection, Reply

KEEPALIVE_S = 3.0
"""Below uvicorn's 5 s: the server must not close a connection just as a call goes out on it."""
COMMON_HEAD = "Accept: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: mole\r\n"


class Place(NamedTuple):
    """Where a connection leads."""

    host: str
    port: int
    tls: bool


class Http(Protocol):
    """Asks and reads the whole answer."""

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """One exchange; redirects are not followed. The caller bounds its time.

        Raises:
            WorkerHttpError: it failed.
            ValueError: the URL or a header cannot be sent.
        """

    async def aclose(self) -> None:
        """Closes the connections."""


class PooledHttp:
    """The product's own; `connect_timeout_s` in seconds. Used from one event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Place, deque[Connection]] = {}
        self._cleared_at = time.monotonic()
        self._tls: ssl.SSLContext | None = None

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """One exchange."""
        place, target = _split(url)
        request = _head(method, target, headers, body) + (body or b"")
        connection = self._take(place) or await self._connect(place)
        reply = await connection.exchange(request)
        self._give_back(place, connection)
        return reply

    async def aclose(self) -> None:
        """Closes the connections that wait; those in use end with their calls."""
        for waiting in self._idle.values():
            for connection in waiting:
                connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # their ends are reported in the next round of the loop

    def _take(self, place: Place) -> Connection | None:
        """The connection used last, if it is fresh enough."""
        waiting = self._idle.get(place)
        while waiting:
            connection = waiting.pop()
            if connection.open and time.monotonic() - connection.idle_since < KEEPALIVE_S:
                return connection
            connection.close()
        return None

    def _give_back(self, place: Place, connection: Connection) -> None:
        if not connection.reusable:
            connection.close()
            return
        connection.idle_since = now = time.monotonic()
        self._idle.setdefault(place, deque()).append(connection)
        if now - self._cleared_at >= KEEPALIVE_S:
            self._clear(now)

    def _clear(self, now: float) -> None:
        """Closes what waited too long: a flood leaves it behind, and a worker that has left the mapping."""
        self._cleared_at = now
        for place, waiting in list(self._idle.items()):
            while waiting and now - waiting[0].idle_since >= KEEPALIVE_S:
                waiting.popleft().close()
            if not waiting:
                del self._idle[place]

    async def _connect(self, place: Place) -> Connection:
        tls: ssl.SSLContext | None = None
        if place.tls:
            tls = self._tls = self._tls or ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(Connection, place.host, place.port, ssl=tls)
        except (OSError, TimeoutError) as error:  # of TLS and of the name, too
            raise ConnectError(str(error)) from error
        return connection


@lru_cache(maxsize=4096)
def _split(url: str) -> tuple[Place, str]:
    """Where a URL leads, and the lines of a head that say so.

    Raises:
        ValueError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no URL of HTTP")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    _check(target + host)
    return Place(
        parts.hostname, parts.port or (443 if tls else 80), tls
    ), f"{target} HTTP/1.1\r\nHost: {host}\r\n"


def _head(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header holds the end of a line")
    length = f"Content-Length: {len(body)}\r\n" if body is not None else ""
    return f"{method} {target}{COMMON_HEAD}{lines}{length}\r\n".encode("latin-1")


def _check(text: str) -> None:
    if not text.isascii() or any(character <= " " for character in text):
        raise ValueError("no URL of HTTP")

"""HTTP towards the workers: one pooled session of aiohttp, asked without any layer between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp

MAX_ANSWER_BYTES = 16 * 2**20
LONGEST_RETRY_AFTER_S = 30.0
KEEPALIVE_S = 3.0
"""Below uvicorn's 5 s: the server must not close a connection just as a call goes out on it."""
COMMON_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "mole"}


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and Retry-After (seconds) of a worker's answer."""

    status: int
    body: bytes
    retry_after_s: float | None


class AnswerTooLongError(Exception):
    """The body passes MAX_ANSWER_BYTES."""


class Http(Protocol):
    """Asks and reads the whole answer."""

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """One exchange; redirects are not followed. The caller bounds its time.

        Raises:
            aiohttp.ClientError, OSError, ValueError: it failed.
            AnswerTooLongError: too much came.
        """

    async def aclose(self) -> None:
        """Closes the connections."""


class AiohttpHttp:
    """The product's own; `connect_timeout_s` in seconds."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """One exchange."""
        if self._session is None or self._session.closed:
            self._session = self._open()
        async with self._session.request(
            method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            chunks: list[bytes] = []
            size = 0
            async for chunk in answer.content.iter_any():
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    answer.close()  # the rest must not be read into a connection kept for others
                    raise AnswerTooLongError
                chunks.append(chunk)
            return Reply(answer.status, b"".join(chunks), retry_after(answer.headers.get("Retry-After")))

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            headers=COMMON_HEADERS,
            trust_env=False,  # a proxy set for the outer world does not know the workers
        )


def retry_after(value: str | None) -> float | None:
    """Seconds, of the numeric form only: a date needs clocks that agree."""
    if value is None or not value.strip().isdigit():
        return None
    return min(float(value.strip()[:6]), LONGEST_RETRY_AFTER_S)

"""One kept connection to a worker: HTTP/1.1, one request at a time, parsed by httptools (llhttp)."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

import httptools

MAX_ANSWER_BYTES = 16 * 2**20
MAX_HEAD_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_S = 30.0
FIELD_LENGTHS = frozenset(map(len, (b"content-length", b"transfer-encoding", b"retry-after")))


class WorkerHttpError(Exception):
    """Root of what can go wrong below the status of an answer."""


class ConnectError(WorkerHttpError):
    """No connection could be made."""


class ClosedError(WorkerHttpError):
    """The connection ended before the first byte of an answer."""


class TruncatedError(WorkerHttpError):
    """It ended in the middle of an answer."""


class NotHttpError(WorkerHttpError):
    """What came is no HTTP."""


class AnswerTooLongError(WorkerHttpError):
    """The head passes MAX_HEAD_BYTES, or the body MAX_ANSWER_BYTES."""


class Reply(NamedTuple):
    """Status, body and Retry-After (seconds) of a worker's answer."""

    status: int
    body: bytes
    retry_after_s: float | None


class Connection(asyncio.Protocol):
    """Sends a request and collects its answer; usable again where `reusable` says so."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.reusable = False
        self._status = 0
        self._retry_after_s: float | None = None
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._in_head = True
        self._bounded = False

    @property
    def open(self) -> bool:
        """Whether a request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> Reply:
        """Sends the whole request and reads its whole answer.

        A caller that is cancelled takes the connection along: the worker sees that nobody waits.

        Raises:
            WorkerHttpError: it failed.
        """
        if self._transport is None or self._transport.is_closing():
            raise ClosedError
        self._begin()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Ends it at once."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; without a request they are nobody's."""
        if self._waiting is None or self._waiting.done():
            self.close()
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_BYTES + len(data):
                self._fail(AnswerTooLongError())
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            self._fail(NotHttpError())

    def eof_received(self) -> bool:
        """The other side sends no more; an answer without a stated length ends so."""
        if not self._in_head and not self._bounded:
            self._finish(reusable=False)
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """It has ended."""
        self._transport = None
        self._fail(TruncatedError() if self._head_size else ClosedError())

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """The first byte of an answer; after the one that was asked for, it is nobody's."""
        if self._waiting is None or self._waiting.done():
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head."""
        if len(name) not in FIELD_LENGTHS:  # most are not ours to read
            return
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            self._bounded = True
            if value.isdigit() and int(value[:20]) > MAX_ANSWER_BYTES:  # not worth the reading
                self._fail(AnswerTooLongError())
        elif lower == b"retry-after":
            self._retry_after_s = retry_after(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._status = self._parser.get_status_code()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._size += len(body)
        if self._size > MAX_ANSWER_BYTES:
            self._fail(AnswerTooLongError())
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole; one of the 1xx only announces another."""
        if self._status < 200:
            self._begin()
        else:
            self._finish(reusable=self._parser.should_keep_alive())

    def _begin(self) -> None:
        self._body = []
        self._size = self._head_size = self._status = 0
        self._in_head, self._bounded, self._retry_after_s = True, False, None

    def _finish(self, *, reusable: bool) -> None:
        if (
            self._waiting is None or self._waiting.done()
        ):  # more than was asked for: nothing of it is to be trusted
            self.close()
            return
        self.reusable = reusable
        self._waiting.set_result(Reply(self._status, b"".join(self._body), self._retry_after_s))

    def _fail(self, error: WorkerHttpError) -> None:
        self.reusable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def retry_after(value: str | None) -> float | None:
    """Seconds, of the numeric form only: a date needs clocks that agree."""
    if value is None or not value.strip().isdecimal():
        return None
    return min(float(value.strip()[:6]), LONGEST_RETRY_AFTER_S)

"""The body of POST /jobs as it arrives: JSON, or JSON Lines of any length, item by item."""

from __future__ import annotations

import asyncio
import hashlib
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from app.api.errors import MediaTypeError
from app.api.messages import declared_type
from app.asgi.intake import BODY_TIMEOUT_S, SlowBodyError
from moe_router.contracts import JobRequest
from moe_router.errors import RequestError, TextTooLongError
from moe_router.invalid_body import InvalidBodyError
from moe_router.media_type import MEND, is_json

JSON_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/x-jsonlines"})
UPLOAD_TIMEOUT_S = 1200.0
"""Bound on a whole upload; each part of it must arrive within BODY_TIMEOUT_S."""

LINES_PER_ITEM = 4
"""Lines of an upload for each item that it may have: the others are blank."""
TURN_EVERY = 256
"""Lines after which others have their turn."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Most items, and most bytes of a JSON Lines upload, and of one line or a JSON body."""

    items: int
    lines_bytes: int
    item_bytes: int


class RequestUpload:
    """Reads a request's body once, within the limits."""

    def __init__(
        self, request: Request, limits: UploadLimits, check: Callable[[int], None] = lambda _: None
    ) -> None:
        """Looks at the head only; `check` is told at each item how many there are so far, and may refuse it.

        Raises:
            MediaTypeError: the body is declared as neither JSON nor JSON Lines.
            TextTooLongError: the stated length passes the limit.
        """
        declared = declared_type(request)
        self._lines = declared in JSON_LINES
        if not self._lines and not is_json(declared):
            raise MediaTypeError(
                f"The body must be JSON, or JSON Lines as application/x-ndjson, and say so: {MEND}."
            )
        self._limits = limits
        self._check = check
        self._most = limits.lines_bytes if self._lines else limits.item_bytes
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self._most:
            raise self._too_long()
        self._request = request
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of what was read, in hexadecimal."""
        return self._hash.hexdigest()

    async def skim(self) -> None:
        """Reads to the end for the digest alone.

        Raises:
            RequestError: the body is too long, too slow, or broken off.
        """
        async for _ in self._chunks():
            pass

    async def items(self) -> AsyncIterator[str]:
        """Each item as a JSON text.

        Raises:
            RequestError: the body is too long, too slow, broken off, or no JSON; or there is no item.
            QuotaExceededError: the caller may not send so many.
        """
        count = 0
        async for item in self._from_lines() if self._lines else self._from_json():
            count += 1
            if count > self._limits.items:
                raise TextTooLongError(f"items: there are more than {self._limits.items}.")
            self._check(count)
            yield item
        if not count:
            raise RequestError("items: there is none.")

    async def _from_json(self) -> AsyncIterator[str]:
        body = b"".join([chunk async for chunk in self._chunks()])
        try:
            request = JobRequest.model_validate_json(body)
        except ValidationError as error:
            raise InvalidBodyError(error) from error
        for index, item in enumerate(request.items):
            try:
                yield orjson.dumps(item).decode()
            except TypeError as error:  # a whole number of more than 64 bits, or nested too deeply
                raise RequestError(f"items.{index}: cannot be stored as JSON.") from error

    async def _from_lines(self) -> AsyncIterator[str]:
        number = 0
        async for line in self._split():
            number += 1
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if not line.strip():
                if number > LINES_PER_ITEM * self._limits.items:
                    raise TextTooLongError("The upload has too many blank lines.")
                continue
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise RequestError(f"line {number}: is no JSON.") from error
            yield line.strip().decode()

    async def _split(self) -> AsyncIterator[bytes]:
        parts: list[bytes] = []
        size = 0
        async for chunk in self._chunks():
            *ended, rest = chunk.split(b"\n")
            for index, piece in enumerate(ended):
                if index % TURN_EVERY == TURN_EVERY - 1:  # short lines of one chunk would keep the loop
                    await asyncio.sleep(0)
                self._check_line(size + len(piece))
                yield b"".join([*parts, piece])
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            self._check_line(size)
        yield b"".join(parts)

    def _check_line(self, size: int) -> None:
        if size > self._limits.item_bytes:
            raise TextTooLongError(f"A line is longer than {self._limits.item_bytes} bytes.")

    async def _chunks(self) -> AsyncIterator[bytes]:
        size = 0
        stream = aiter(self._request.stream())
        end = asyncio.get_running_loop().time() + UPLOAD_TIMEOUT_S
        while True:
            patience = min(BODY_TIMEOUT_S, end - asyncio.get_running_loop().time())
            try:
                async with asyncio.timeout(max(patience, 0.0)):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise SlowBodyError("The upload took too long.") from error
            except ClientDisconnect as error:
                raise RequestError("The upload broke off.") from error
            size += len(chunk)
            if size > self._most:
                raise self._too_long()
            self._hash.update(chunk)
            yield chunk

    def _too_long(self) -> TextTooLongError:
        return TextTooLongError(f"The body is longer than {self._most} bytes.")

"""Uploads that do not come to an end."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.api import job_upload as module
from app.api.job_upload import RequestUpload, UploadLimits
from app.asgi.intake import SlowBodyError
from moe_router.errors import RequestError, TextTooLongError

LIMITS = UploadLimits(items=10, lines_bytes=1000, item_bytes=100)


def upload(*messages: Message | None, kind: str = "application/x-ndjson", length: str = "") -> RequestUpload:
    """None: nothing more comes."""
    left = list(messages)

    async def receive() -> Message:
        message = left.pop(0)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    headers = [(b"content-type", kind.encode()), (b"content-length", length.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    return RequestUpload(Request(scope, receive), LIMITS)


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def items(given: RequestUpload) -> list[str]:
    return [item async for item in given.items()]


async def test_items_and_digest_are_of_the_whole_body() -> None:
    given = upload(part(b'{"a"'), part(b": 1}\n2\r\n\n"), part(b"3"), part(b"", more=False))
    assert await items(given) == ['{"a": 1}', "2", "3"]
    assert given.digest == hashlib.sha256(b'{"a": 1}\n2\r\n\n3').hexdigest()
    again = upload(part(b'{"a": 1}\n2\r\n'), part(b"\n3", more=False))
    await again.skim()
    assert again.digest == given.digest


async def test_a_mark_of_the_byte_order_is_passed_over_once_at_the_very_beginning() -> None:
    assert await items(upload(part(b"\xef"), part(b"\xbb\xbf1\n2", more=False))) == ["1", "2"]
    assert await items(upload(part(b"\xef\xbb\xbf\r\n1", more=False))) == ["1"]
    for body, line in ((b"\xef\xbb\xbf\xef\xbb\xbf1\n", 1), (b"1\n\xef\xbb\xbf2\n", 2)):
        with pytest.raises(RequestError, match=f"line {line}: is no JSON"):
            await items(upload(part(body, more=False)))


async def test_one_that_stops_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_TIMEOUT_S", 0.01)
    with pytest.raises(SlowBodyError):
        await items(upload(part(b"1\n"), None))


async def test_one_that_drips_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPLOAD_TIMEOUT_S", 0.0)
    with pytest.raises(SlowBodyError):
        await items(upload(None))


async def test_one_that_breaks_off_is_refused() -> None:
    with pytest.raises(RequestError, match="broke off"):
        await items(upload(part(b"1\n"), {"type": "http.disconnect"}))


async def test_a_length_stated_too_long_is_refused_unread() -> None:
    with pytest.raises(TextTooLongError, match="1000 bytes"):
        upload(None, length="1001")
    with pytest.raises(TextTooLongError, match="100 bytes"):
        upload(None, kind="application/json", length="101")


async def test_a_number_that_json_cannot_hold_is_named() -> None:
    body = b'{"items": [1, %d]}' % 2**70
    with pytest.raises(RequestError, match=r"items\.1: "):
        await items(upload(part(body, more=False), kind="application/json"))


async def test_blank_lines_are_no_way_past_the_limits() -> None:
    assert await items(upload(part(b"\n" * 30 + b"1\n", more=False))) == ["1"]
    with pytest.raises(TextTooLongError, match="blank lines"):
        await items(upload(part(b"\n" * 50, more=False)))


async def test_a_chunk_of_short_lines_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_EVERY", 2)
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    given = upload(part(b"1\n2\n3\n4\n", more=False))
    waiting = asyncio.create_task(other())
    turns += [item async for item in given.items()]
    await waiting
    assert turns.index("other") < 4

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from expert_worker import envelope
from expert_worker.envelope import Envelope
from expert_worker.metrics import Metrics
from moe_router.drain import Drain
from tests.stubs.envelopes import ended_after_its_answer_began

CHUNK = {"type": "http.request", "body": b"ab", "more_body": True}
LAST = {"type": "http.request", "body": b"c", "more_body": False}
GONE = {"type": "http.disconnect"}


class Scene:
    """One request, message by message."""

    def __init__(
        self, inner: Any, *, limit: int = 10, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.headers = headers or []
        self.metrics = Metrics()
        self.drain = Drain()
        self.app = Envelope(inner, metrics=self.metrics, drain=self.drain, max_body_bytes=lambda: limit)
        self.sent: list[Any] = []

    async def run(self, *messages: dict[str, Any]) -> None:
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            incoming.put_nowait(message)

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.app(
            {"type": "http", "method": "POST", "path": "/x", "headers": self.headers}, incoming.get, send
        )

    def counted(self, status: int) -> bool:
        line = f'mole_requests_total{{route="unmatched",status="{status}"}} 1.0'
        return line in self.metrics.render().decode()


async def answering(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def hanging(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.Event().wait()


async def test_a_request_that_outlasts_the_drain_is_told_that_the_worker_ends() -> None:
    scene = Scene(hanging)
    request = asyncio.create_task(scene.run(LAST))
    await asyncio.sleep(0)
    scene.drain.draining = True
    request.cancel()
    await request
    assert (scene.sent[0]["status"], scene.counted(503)) == (503, True)
    assert b"retry-after" in dict(scene.sent[0]["headers"])


async def test_an_answer_that_has_begun_when_the_service_ends_is_followed_by_no_other() -> None:
    scene = await ended_after_its_answer_began(Scene, LAST)
    assert scene.counted(200)


async def test_a_body_in_pieces_is_put_together() -> None:
    scene = Scene(answering)
    await scene.run(CHUNK, LAST)
    assert scene.sent[1]["body"] == b"abc"
    assert scene.sent[0]["headers"][0][0] == b"x-request-id"


async def test_a_body_over_the_limit_is_refused() -> None:
    scene = Scene(answering, limit=3)
    await scene.run(CHUNK, CHUNK, LAST)
    assert scene.sent[0]["status"] == 413


async def test_a_client_that_goes_cancels_the_work() -> None:
    scene = Scene(hanging)
    await scene.run(LAST, GONE)
    assert scene.sent == []
    assert scene.counted(499)
    assert scene.drain.in_flight == 0


async def test_a_client_that_goes_within_its_body_is_forgotten() -> None:
    scene = Scene(answering)
    await scene.run(CHUNK, GONE)
    assert scene.sent == []
    assert scene.counted(499)


async def test_headers_have_a_limit_too() -> None:
    scene = Scene(answering, headers=[(b"x", b"v" * 40_000)])
    await scene.run(LAST)
    assert scene.sent[0]["status"] == 431


async def test_a_body_that_drips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "BODY_TIMEOUT_S", 0.01)
    scene = Scene(answering)
    await scene.run(CHUNK)
    assert scene.sent[0]["status"] == 408

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.asgi import intake
from app.asgi.envelope import Envelope
from app.asgi.exchange import exchange_of
from app.asgi.intake import Intake
from app.services.telemetry.metrics import Metrics
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
        self.metrics = Metrics()
        self.drain = Drain()
        self.app = Envelope(
            Intake(inner, longest_body=lambda _: limit), metrics=self.metrics, drain=self.drain
        )
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/x",
            "headers": headers or [],
        }
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []

    async def run(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.incoming.put_nowait(message)

        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.app(self.scope, self.incoming.get, send)

    def counted(self, status: int) -> bool:
        return (
            f'mole_requests_total{{method="POST",route="unmatched",status="{status}"}} 1.0'
            in self.metrics.render().decode()
        )


async def answering(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    assert message["body"] == exchange_of(scope).body
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def test_an_answer_that_has_begun_when_the_service_ends_is_followed_by_no_other() -> None:
    scene = await ended_after_its_answer_began(Scene, LAST)
    assert scene.counted(200)


async def test_the_whole_body_is_there_before_the_application_runs() -> None:
    scene = Scene(answering)
    await scene.run(CHUNK, CHUNK, LAST)
    assert scene.sent[1]["body"] == b"ababc"
    assert scene.counted(200)
    names = [name for name, _ in scene.sent[0]["headers"]]
    assert names[:3] == [b"x-request-id", b"x-mole-overhead-duration-ms", b"x-mole-expert"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"999")], [(b"content-length", b"9" * 50)]])
async def test_a_body_over_the_limit_never_reaches_it(headers: list[tuple[bytes, bytes]]) -> None:
    scene = Scene(answering, limit=3, headers=headers)
    await scene.run(CHUNK, CHUNK, LAST)
    assert scene.sent[0]["status"] == 413
    assert scene.counted(413)


async def test_a_slow_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BODY_TIMEOUT_S", 0.02)
    scene = Scene(answering)
    await scene.run(CHUNK)
    assert scene.sent[0]["status"] == 408


async def test_a_client_that_goes_cancels_the_work() -> None:
    ended: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    scene = Scene(slow)
    await scene.run(LAST, GONE)
    assert ended == ["cancelled"]
    assert scene.sent == []
    assert scene.counted(499)
    assert scene.drain.in_flight == 0


async def test_a_client_that_goes_within_its_body_is_forgotten() -> None:
    scene = Scene(answering)
    await scene.run(CHUNK, GONE)
    assert scene.sent == []
    assert scene.counted(499)


async def test_a_cancellation_from_elsewhere_is_passed_on() -> None:
    started = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Scene(slow).run(LAST))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_fault_after_the_answer_began_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("a fault of ours")

    scene = Scene(breaking)
    await scene.run(LAST)
    assert [message["type"] for message in scene.sent] == ["http.response.start"]
    assert "failed unexpectedly" in caplog.text


async def test_headers_have_a_limit_too() -> None:
    headers = [(f"x-{i}".encode(), b"v" * 1000) for i in range(40)]
    scene = Scene(None, headers=headers)
    await scene.run(LAST)
    assert scene.sent[0]["status"] == 431
    assert (b"x-mole-expert", b"none") in scene.sent[0]["headers"]


async def test_bodies_that_are_read_or_worked_on_have_a_bound_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "BYTES_IN_ALL", 6)
    monkeypatch.setattr(intake, "BYTES_PER_CALLER", 4)
    go = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answering(scope, receive, send)

    first = Scene(waiting, limit=4)

    def scene(address: str) -> Scene:
        made = Scene(waiting)
        made.app = first.app
        made.scope["client"] = (address, 1)
        return made

    async def status(found: Scene, *messages: dict[str, Any]) -> tuple[int, bool]:
        await found.run(*messages)
        return found.sent[0]["status"], any(name == b"retry-after" for name, _ in found.sent[0]["headers"])

    reading, working = scene("10.0.0.1"), scene("10.0.0.1")
    tasks = [asyncio.create_task(reading.run(CHUNK)), asyncio.create_task(working.run(LAST))]
    await asyncio.sleep(0)
    assert await status(scene("10.0.0.1"), CHUNK, LAST) == (429, True)
    other = scene("10.0.0.2")
    tasks.append(asyncio.create_task(other.run(CHUNK, LAST)))
    await asyncio.sleep(0)
    assert await status(scene("10.0.0.2"), LAST) == (503, True)
    go.set()
    reading.incoming.put_nowait(LAST)
    await asyncio.gather(*tasks)
    assert [found.sent[0]["status"] for found in (reading, working, other)] == [200, 200, 200]
    gone = scene("10.0.0.1")
    await gone.run(CHUNK, GONE)
    assert await status(scene("10.0.0.1"), CHUNK, {**CHUNK, "more_body": False}) == (200, False)


async def test_a_body_that_is_refused_half_read_is_counted_off_once() -> None:
    counted: list[int] = []
    scene = Scene(answering, limit=3)
    layer = scene.app.app
    assert isinstance(layer, Intake)

    async def send(message: Any) -> None:
        scene.sent.append(message)
        assert layer._bytes is not None
        counted.append(layer._bytes.requests)

    for message in (CHUNK, CHUNK, LAST):
        scene.incoming.put_nowait(message)
    await scene.app(scene.scope, scene.incoming.get, send)
    assert layer._bytes is not None
    counted.append(layer._bytes.requests)
    assert scene.sent[0]["status"] == 413
    assert counted == [0, 0, 0]

"""Head and body of an answer in one write, behind uvicorn; unchanged behind anything else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.asgi.envelope import Envelope
from app.asgi.one_write import hold_writes
from app.services.telemetry.metrics import Metrics
from moe_router.drain import Drain
from tests.stubs.processes import free_port
from tests.stubs.serving import until

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def whole(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"whole"})


async def in_parts(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"in ", b"parts"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def empty(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def broken(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    raise RuntimeError("a fault of ours")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


class Server:
    """uvicorn, with the layer around an application, and what it has written so far."""

    def __init__(self, inner: Any, protocol: type[asyncio.Protocol], monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[bytes] = []
        made = protocol.connection_made

        def connection_made(connection: Any, transport: Any) -> None:
            made(connection, Seen(transport, self.writes))  # type: ignore[arg-type]

        monkeypatch.setattr(protocol, "connection_made", connection_made)
        app = Envelope(inner, metrics=Metrics(), drain=Drain())
        self.port = free_port()
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(app, port=self.port, http=protocol, lifespan="off", log_level="critical")
        )

    async def __aenter__(self) -> Server:
        self.task = asyncio.create_task(self.uvicorn.serve())
        await until(lambda: self.uvicorn.started)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.uvicorn.should_exit = True
        await self.task

    async def exchange(self, *requests: bytes) -> bytes:
        """Sends them at once, and reads until the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"".join(requests))
        async with asyncio.timeout(10):
            answered = await reader.read()
        writer.close()
        return answered


class Seen:
    """A transport whose writes are noted."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


PROTOCOLS = pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])


@PROTOCOLS
async def test_head_and_body_leave_together(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(whole, protocol, monkeypatch) as server:
        answered = await server.exchange(GET, GET, LAST)
    assert answered.count(b"HTTP/1.1 200") == answered.count(b"\r\n\r\nwhole") == 3
    if protocol is HttpToolsProtocol:
        assert len(server.writes) == 3
    for answer in answered.split(b"HTTP/1.1 200 OK\r\n")[1:]:
        fields = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
        names = [field.partition(b": ")[0] for field in fields]
        assert len(set(names)) == len(names)
        assert {b"content-length", b"x-request-id", b"x-mole-overhead-duration-ms", b"x-mole-expert"} < set(
            names
        )


@PROTOCOLS
async def test_an_answer_in_parts_is_whole_too(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(in_parts, protocol, monkeypatch) as server:
        answered = await server.exchange(GET, LAST)
    assert answered.count(b"3\r\nin \r\n5\r\nparts\r\n0\r\n\r\n") == 2
    assert server.writes[0].endswith(b"\r\n\r\n"), "what may take its time does not keep the head back"


@PROTOCOLS
@pytest.mark.parametrize(("app", "request_"), [(empty, GET), (whole, HEAD)])
async def test_a_head_without_a_body_is_not_kept(
    protocol: Any, app: Any, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(app, protocol, monkeypatch) as server:
        answered = await server.exchange(request_, request_, LAST)
    assert answered.count(b"HTTP/1.1 20") == 3


@PROTOCOLS
async def test_a_head_whose_body_fails_ends_the_connection(
    protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(broken, protocol, monkeypatch) as server:
        answered = await server.exchange(GET)
    assert answered.startswith(b"HTTP/1.1 200")
    assert answered.endswith(b"\r\n\r\n")


@PROTOCOLS
async def test_who_waits_for_a_continue_gets_it(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    async with Server(echo, protocol, monkeypatch) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            writer.write(b"ab")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"ab"
        writer.close()


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb"])
async def test_a_field_that_would_be_two_is_refused(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="end of a line"):
            hold_writes(send.__closure__[-1].cell_contents, [(b"x", value)])
        await whole(scope, receive, send)

    async with Server(refusing, HttpToolsProtocol, monkeypatch) as server:
        assert (await server.exchange(LAST)).endswith(b"whole")


async def test_any_other_server_is_left_alone() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    assert hold_writes(send, [(b"x", b"y")]) is None
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    await Envelope(whole, metrics=Metrics(), drain=Drain())(scope, asyncio.Event().wait, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]

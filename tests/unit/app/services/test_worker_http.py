"""The client towards workers against a server that says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from app.services import worker_http
from app.services.worker_http import AiohttpHttp, AnswerTooLongError, retry_after


class Server:
    """Answers every request on a connection with the same bytes."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
        self.connections = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answer)
                await writer.drain()
                if b"Content-Length: 9" in self.answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    yield found
    listening.close()


@pytest.fixture
async def http() -> AsyncIterator[AiohttpHttp]:
    found = AiohttpHttp(1.0)
    yield found
    await found.aclose()


async def test_a_connection_is_kept(server: Server, http: AiohttpHttp) -> None:
    for _ in range(3):
        reply = await http.ask("GET", server.url, {"X-Own": "1"}, None)
    assert (reply.status, reply.body, reply.retry_after_s) == (200, b"{}", 7)
    assert server.connections == 1
    assert b"X-Own: 1" in server.heads[0]
    assert b"Accept-Encoding: identity" in server.heads[0]


async def test_redirects_are_not_followed(server: Server, http: AiohttpHttp) -> None:
    server.answer = b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"
    assert (await http.ask("GET", server.url, {}, None)).status == 302


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", aiohttp.ClientPayloadError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", aiohttp.ClientResponseError),
    ],
)
async def test_what_breaks(server: Server, http: AiohttpHttp, answer: bytes, error: type[Exception]) -> None:
    server.answer = answer
    with pytest.raises(error):
        await http.ask("GET", server.url, {}, None)


async def test_an_answer_has_a_bound(
    server: Server, http: AiohttpHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_http, "MAX_ANSWER_BYTES", 1)
    with pytest.raises(AnswerTooLongError):
        await http.ask("GET", server.url, {}, None)


async def test_nobody_there(http: AiohttpHttp) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.ask("GET", "http://127.0.0.1:1/", {}, None)
    with pytest.raises(aiohttp.InvalidURL):
        await http.ask("GET", "http://", {}, None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("3", 3), (" 3 ", 3), ("9999999999", 30), ("-1", None), ("soon", None)],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds

"""The client towards workers against a server that says what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.services.workers import connection
from app.services.workers import http as worker_http
from app.services.workers.connection import (
    AnswerTooLongError,
    ClosedError,
    ConnectError,
    NotHttpError,
    TruncatedError,
    WorkerHttpError,
    retry_after,
)
from app.services.workers.http import PooledHttp

OK = b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers every request on a connection with the same bytes."""

    def __init__(self) -> None:
        self.answer = OK
        self.closes = False
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.connections = 0
        self.ended = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not reader.at_eof():
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self.hangs.wait()
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x?y=1"
    yield found
    listening.close()


@pytest.fixture
async def http() -> AsyncIterator[PooledHttp]:
    found = PooledHttp(1.0)
    yield found
    await found.aclose()


async def until(check: object) -> None:
    async with asyncio.timeout(10):
        while not check():  # type: ignore[operator]  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_a_connection_is_kept(server: Server, http: PooledHttp) -> None:
    for _ in range(3):
        reply = await http.ask("GET", server.url, {"X-Own": "1"}, None)
    assert (reply.status, reply.body, reply.retry_after_s) == (200, b"{}", 7)
    assert server.connections == 1
    host = server.url.split("/")[2].encode()
    assert server.heads[0] == (
        b"GET /x?y=1 HTTP/1.1\r\nHost: " + host + b"\r\nAccept: application/json\r\n"
        b"Accept-Encoding: identity\r\nUser-Agent: mole\r\nX-Own: 1\r\n\r\n"
    )


async def test_calls_at_once_have_connections_of_their_own(server: Server, http: PooledHttp) -> None:
    await asyncio.gather(*(http.ask("GET", server.url, {}, None) for _ in range(5)))
    assert server.connections == 5
    await asyncio.gather(*(http.ask("GET", server.url, {}, None) for _ in range(5)))
    assert server.connections == 5


async def test_one_that_waited_too_long_is_not_used_again(
    server: Server, http: PooledHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(http.ask("GET", server.url, {}, None) for _ in range(3)))
    monkeypatch.setattr(worker_http, "KEEPALIVE_S", 0.0)
    await http.ask("GET", server.url, {}, None)
    await until(lambda: server.ended == 4)
    assert server.connections == 4


async def test_connections_to_an_address_that_is_asked_no_more_are_closed(
    server: Server, http: PooledHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Server()
    listening = await asyncio.start_server(left.serve, "127.0.0.1", 0)
    await http.ask("GET", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", {}, None)
    monkeypatch.setattr(worker_http, "KEEPALIVE_S", 0.0)
    await http.ask("GET", server.url, {}, None)
    await until(lambda: left.ended == 1)
    assert not http._idle
    listening.close()


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", 200, b"1"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
)
async def test_forms_of_answers(
    server: Server, http: PooledHttp, answer: bytes, status: int, body: bytes
) -> None:
    server.answer = answer
    for _ in range(2):
        reply = await http.ask("POST", server.url, {}, b"{}")
        assert (reply.status, reply.body) == (status, body)
    assert server.connections == 1


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\nContent-Length: 2\r\n"])
async def test_an_answer_that_ends_with_its_connection(
    server: Server, http: PooledHttp, close: bytes
) -> None:
    server.answer, server.closes = b"HTTP/1.1 200 OK\r\n" + close + b"\r\n{}", True
    for _ in range(2):
        assert (await http.ask("GET", server.url, {}, None)).body == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ClosedError),
        (b"HTTP/1.1 2", TruncatedError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", TruncatedError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}", TruncatedError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", NotHttpError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n{}", NotHttpError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", NotHttpError),
    ],
)
async def test_what_breaks(server: Server, http: PooledHttp, answer: bytes, error: type[Exception]) -> None:
    server.answer, server.closes = answer, True
    with pytest.raises(error):
        await http.ask("GET", server.url, {}, None)
    server.answer, server.closes = OK, False
    assert (await http.ask("GET", server.url, {}, None)).body == b"{}"


async def test_more_than_was_asked_for_is_nobodys(server: Server, http: PooledHttp) -> None:
    server.answer = OK + b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nevil"
    for _ in range(2):
        reply = await http.ask("GET", server.url, {}, None)
        assert (reply.status, reply.body) == (200, b"{}")
    assert server.connections == 2


@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\nX-A: ", OK[:-1]])
async def test_nor_is_the_beginning_of_more(server: Server, http: PooledHttp, surplus: bytes) -> None:
    server.answer = OK + surplus
    assert (await http.ask("GET", server.url, {}, None)).body == b"{}"
    server.answer = b"b\r\nContent-Length: 6\r\n\r\nFORGED"
    with contextlib.suppress(WorkerHttpError):
        assert (await http.ask("GET", server.url, {}, None)).body != b"FORGED"
    assert server.connections == 2


async def test_an_answer_has_a_bound(
    server: Server, http: PooledHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1)
    with pytest.raises(AnswerTooLongError):
        await http.ask("GET", server.url, {}, None)
    monkeypatch.setattr(connection, "MAX_HEAD_BYTES", 1000)
    server.answer = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000
    with pytest.raises(AnswerTooLongError):
        await http.ask("GET", server.url, {}, None)


async def test_whoever_stops_waiting_takes_the_connection_along(server: Server, http: PooledHttp) -> None:
    server.hangs.clear()
    call = asyncio.create_task(http.ask("GET", server.url, {}, None))
    await until(lambda: server.heads)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    server.hangs.set()
    assert (await http.ask("GET", server.url, {}, None)).status == 200
    assert server.connections == 2


async def test_a_connection_that_was_closed_meanwhile_is_not_used(server: Server, http: PooledHttp) -> None:
    server.closes = True
    for number in (1, 2):
        assert (await http.ask("GET", server.url, {}, None)).status == 200
        await until(lambda number=number: server.ended == number)
        await asyncio.sleep(0.01)  # until the end arrives here
    assert server.connections == 2


async def test_nobody_there(http: PooledHttp) -> None:
    with pytest.raises(ConnectError):
        await http.ask("GET", "http://127.0.0.1:1/", {}, None)
    with pytest.raises(ConnectError):
        await http.ask("GET", "http://no.such.name.invalid/", {}, None)


@pytest.mark.parametrize(
    "url", ["http://", "ftp://x/", "x", "http://a b/", "http://a/\r\nX: y", "http://a:x/"]
)
async def test_what_is_no_url(http: PooledHttp, url: str) -> None:
    with pytest.raises(ValueError):
        await http.ask("GET", url, {}, None)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\ny", "a\ry", "€"])
async def test_a_header_cannot_bring_others_along(server: Server, http: PooledHttp, value: str) -> None:
    with pytest.raises(ValueError):
        await http.ask("GET", server.url, {"X-Own": value}, None)
    assert server.heads == []


@pytest.fixture
def own_certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Of `localhost`, and its key."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*make, "-keyout", str(key), "-out", str(certificate), "-days", "2", *subject],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_certificates_are_verified(
    http: PooledHttp, own_certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = own_certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    try:
        with pytest.raises(ConnectError):
            await http.ask("GET", f"https://localhost:{port}/", {}, None)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        trusting = PooledHttp(5.0)
        assert (await trusting.ask("GET", f"https://localhost:{port}/", {}, None)).status == 200
        with pytest.raises(ConnectError):
            await trusting.ask("GET", f"https://127.0.0.1:{port}/", {}, None)
        await trusting.aclose()
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("3", 3), (" 3 ", 3), ("9999999999", 30), ("-1", None), ("soon", None), ("²", None)],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds

"""The end of a process under uvicorn is bounded, whatever its clients do."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.stubs.processes import Process, Stage


def started(stage: Stage, seconds: float) -> Process:
    given = {"STUB_DRAIN_S": str(seconds)}
    process = stage._uvicorn("tests.stubs.draining_app:app", None, given)
    process.wait_for("/")
    return process


def stalled(process: Process) -> socket.socket:
    """A client that asks for much and reads nothing of it."""
    client = socket.create_connection(("127.0.0.1", process.port))
    client.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
    client.recv(1)
    return client


@asynccontextmanager
async def busy(stage: Stage, seconds: float) -> AsyncIterator[tuple[Process, asyncio.Task[httpx.Response]]]:
    """A service that drains for so long, and a call that it does not answer; a stalled reader beside it."""
    process = started(stage, seconds)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        with stalled(process):
            call = asyncio.create_task(client.post(process.url))
            while (await client.get(process.url)).text != "1":  # noqa: ASYNC110 - the other side is a process
                await asyncio.sleep(0.01)
            yield process, call


async def test_requests_that_take_too_long_are_told_so_and_stalled_readers_cut_off(stage: Stage) -> None:
    async with busy(stage, 0.5) as (process, call):
        begun = time.monotonic()
        process.send(signal.SIGTERM)
        answer = await call
        assert (answer.status_code, "ended before the answer" in answer.text) == (503, True)
        assert await asyncio.to_thread(process.wait_end) in (0, -signal.SIGTERM)
    assert time.monotonic() - begun < 15
    assert "the application has ended" in process.log.read_text()


async def test_asked_twice_it_does_not_wait(stage: Stage) -> None:
    async with busy(stage, 600) as (process, call):
        process.send(signal.SIGTERM)
        await asyncio.sleep(0.2)
        process.send(signal.SIGTERM)
        assert (await call).status_code == 503
        assert await asyncio.to_thread(process.wait_end) in (0, -signal.SIGTERM)
    assert "the application has ended" in process.log.read_text()

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from uvicorn import Config, Server

from moe_router.drain import LAST_S, Drain
from moe_router.errors import NotReadyError
from tests.stubs.serving import until


@pytest.fixture
def told() -> Iterator[list[int]]:
    """Stands for the server's own handler."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


async def until_told(told: list[int]) -> None:
    async with asyncio.timeout(10):
        while not told:  # noqa: ASYNC110 - a signal has no event
            await asyncio.sleep(0.005)


async def test_the_server_is_told_when_nothing_is_in_flight(told: list[int]) -> None:
    drain = Drain()
    drain.install(10)
    with drain.request():
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.02)
        assert drain.draining
        assert told == []
    await until_told(told)


async def test_it_waits_no_longer_than_its_bound(told: list[int]) -> None:
    drain = Drain()
    drain.install(0.01)

    async def request() -> None:
        with drain.request(counted=False), drain.request():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(NotReadyError):
        await asyncio.create_task(request())
    await until_told(told)
    assert drain.in_flight == 0


async def test_a_request_that_is_cancelled_while_nothing_ends_is_cancelled(told: list[int]) -> None:
    drain = Drain()
    drain.install(10)

    async def request() -> None:
        with drain.request():
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == []


async def test_after_the_end_the_signal_is_the_servers_own_again(told: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    drain = Drain()
    drain.uninstall()
    drain.install(10)
    assert signal.getsignal(signal.SIGTERM) is not before
    drain.uninstall()
    drain.uninstall()
    assert signal.getsignal(signal.SIGTERM) is before
    assert told == []


async def test_the_servers_own_end_is_bounded_unless_it_is_told_how_long() -> None:
    for given, used in ((None, LAST_S), (77, 77)):
        config = Config("x:y", timeout_graceful_shutdown=given)
        server = Server(config)
        before = signal.signal(signal.SIGTERM, server.handle_exit)
        try:
            drain = Drain()
            drain.install(0.0)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda server=server: server.should_exit)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert config.timeout_graceful_shutdown == used


async def test_a_second_signal_does_not_wait(told: list[int]) -> None:
    drain = Drain()
    drain.install(10)
    with drain.request():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM]


async def test_who_waits_for_the_last_request_waits_no_longer_than_its_bound() -> None:
    drain = Drain()
    with drain.request():
        await drain.wait_idle(0.01)
        assert drain.in_flight == 1

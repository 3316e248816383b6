from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from app.asgi.drain import Drain


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
    with drain.request(counted=False), drain.request():
        signal.raise_signal(signal.SIGTERM)
        await until_told(told)
        assert drain.in_flight == 1


async def test_a_second_signal_does_not_wait(told: list[int]) -> None:
    drain = Drain()
    drain.install(10)
    with drain.request():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM]

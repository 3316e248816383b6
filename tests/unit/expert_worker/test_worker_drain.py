from __future__ import annotations

import asyncio
import signal

from expert_worker.drain import Drain


async def test_the_server_is_told_when_nothing_is_in_flight() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        drain = Drain()
        drain.install(10)
        with drain.request():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.02)
            assert drain.draining
            assert told == []
        async with asyncio.timeout(10):
            while not told:  # noqa: ASYNC110 - a signal has no event
                await asyncio.sleep(0.005)
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_it_waits_no_longer_than_its_bound() -> None:
    drain = Drain()
    with drain.request():
        await drain.wait_idle(0.01)
        assert drain.in_flight == 1

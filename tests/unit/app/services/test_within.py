"""A bound on the time of a block: the cases that asyncio's own bound has."""

from __future__ import annotations

import asyncio

import pytest

from app.services.within import within


async def test_a_block_in_time_leaves_nothing_behind() -> None:
    task = asyncio.current_task()
    assert task is not None
    with within(60):
        await asyncio.sleep(0)
    assert task.cancelling() == 0


@pytest.mark.parametrize("long", [1.0, 0.0], ids=["timer", "alarm"])
@pytest.mark.parametrize("seconds", [0.001, 0.0, -1.0])
async def test_a_block_that_waits_too_long_times_out(
    seconds: float, long: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.within.LONG_S", long)
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError), within(seconds):
        await asyncio.Event().wait()
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # it goes on as if nothing had been


async def test_an_error_of_the_block_stays_its_own() -> None:
    with pytest.raises(ZeroDivisionError), within(60):
        _ = 1 / 0


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        with within(60):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_wins_where_both_come() -> None:
    async def work() -> None:
        own = asyncio.current_task()
        assert own is not None
        with within(0):
            asyncio.get_running_loop().call_soon(own.cancel)
            await asyncio.sleep(0)
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_the_inner_of_two_times_out_alone() -> None:
    with within(60):
        with pytest.raises(TimeoutError), within(0.001):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_the_outer_of_two_ends_both() -> None:
    async def inner() -> None:
        try:
            with within(60):
                await asyncio.Event().wait()
        except TimeoutError:
            pytest.fail("the inner one was in time")

    with pytest.raises(TimeoutError), within(0.001):
        await inner()


def test_it_needs_a_task() -> None:
    with pytest.raises(RuntimeError), within(1):
        pass

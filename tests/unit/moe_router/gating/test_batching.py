from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import cast

import numpy as np
import pytest

from moe_router.gating.batching import MAX_BATCH, BatchingEncoder
from moe_router.gating.encoder import Encoder
from moe_router.gating.weights import Floats


class GatedEncoder:
    """Encodes a text as its number; each pass waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.faults: dict[str, Exception] = {}

    def encode(self, texts: Sequence[str]) -> Floats:
        self.batches.append(list(texts))
        self.started.release()
        self.go.acquire()
        for text in texts:
            if text in self.faults:
                raise self.faults[text]
        return np.array([[float(text)] for text in texts], np.float32)


@pytest.fixture
def gated() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
async def batching(gated: GatedEncoder) -> AsyncIterator[BatchingEncoder]:
    own = BatchingEncoder(cast(Encoder, gated), cached=2)
    yield own
    gated.go.release(100)
    await own.aclose()


async def in_pass(gated: GatedEncoder) -> None:
    """Waits until the next pass has begun; the loop runs on meanwhile."""
    await asyncio.to_thread(gated.started.acquire)


async def queued(*tasks: asyncio.Task[list[Floats]]) -> None:
    """Lets tasks run up to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def ask(batching: BatchingEncoder, *texts: str) -> asyncio.Task[list[Floats]]:
    return asyncio.create_task(batching.encode(texts))


async def test_an_idle_encoder_begins_at_once(batching, gated):
    first = ask(batching, "1")
    await in_pass(gated)
    assert gated.batches == [["1"]]
    gated.go.release()
    assert [vector.tolist() for vector in await first] == [[1.0]]


async def test_what_comes_during_a_pass_shares_the_next(batching, gated):
    first = ask(batching, "0")
    await in_pass(gated)
    others = [ask(batching, str(i), str(i + 100)) for i in range(1, 9)]
    await queued(first, *others)
    gated.go.release(2)
    await first
    for i, task in enumerate(others, 1):
        assert [vector.tolist() for vector in await task] == [[float(i)], [float(i + 100)]]
    assert batching.passes == 2
    assert len(gated.batches[1]) == 16


async def test_a_burst_is_cut_into_batches(batching, gated):
    first = ask(batching, "0")
    await in_pass(gated)
    burst = [ask(batching, str(i)) for i in range(MAX_BATCH + 10)]
    await queued(*burst)
    gated.go.release(3)
    found = await asyncio.gather(first, *burst)
    assert [len(batch) for batch in gated.batches] == [1, MAX_BATCH, 10]
    assert [float(vectors[0][0]) for vectors in found[1:]] == [float(i) for i in range(MAX_BATCH + 10)]


async def test_who_is_cancelled_while_waiting_is_not_encoded(batching, gated):
    first = ask(batching, "0")
    await in_pass(gated)
    leaving, staying = ask(batching, "1", "2"), ask(batching, "3")
    await queued(leaving, staying)
    leaving.cancel()
    await asyncio.wait([leaving])
    gated.go.release(2)
    assert (await staying)[0].tolist() == [3.0]
    await first
    assert leaving.cancelled()
    assert gated.batches == [["0"], ["3"]]


async def test_if_all_who_wait_leave_there_is_no_pass(batching, gated):
    first = ask(batching, "0")
    await in_pass(gated)
    leaving = [ask(batching, "1"), ask(batching, "2")]
    await queued(*leaving)
    for task in leaving:
        task.cancel()
    gated.go.release(2)
    await asyncio.wait([first, *leaving])
    later = ask(batching, "3")
    assert (await later)[0].tolist() == [3.0]
    assert gated.batches == [["0"], ["3"]]


async def test_who_is_cancelled_during_the_pass_harms_nobody(batching, gated):
    first = ask(batching, "0")
    await in_pass(gated)
    leaving, staying = ask(batching, "1"), ask(batching, "2")
    await queued(leaving, staying)
    gated.go.release()
    await in_pass(gated)
    leaving.cancel()
    await asyncio.wait([leaving])
    gated.go.release()
    assert (await staying)[0].tolist() == [2.0]
    assert leaving.cancelled()
    await first


@pytest.mark.parametrize("texts", [("1",), ("1", "2"), ("2", "1", "3")])
async def test_a_fault_of_a_pass_is_told_to_all_who_wait_for_it(batching, gated, texts):
    gated.faults["1"] = RuntimeError("out of memory")
    first = ask(batching, "0")
    await in_pass(gated)
    failing, beside = ask(batching, *texts), ask(batching, "9")
    await queued(failing, beside)
    gated.go.release(2)
    for task in (failing, beside):
        with pytest.raises(RuntimeError, match="out of memory"):
            await task
    assert (await first)[0].tolist() == [0.0]
    later = ask(batching, "4")
    gated.go.release()
    assert (await later)[0].tolist() == [4.0]


async def test_nothing_to_encode_is_no_pass(batching):
    assert await batching.encode([]) == []
    assert batching.passes == 0


async def test_closing_ends_who_waits_and_lets_the_pass_finish(batching, gated):
    running = ask(batching, "0")
    await in_pass(gated)
    waiting = ask(batching, "1")
    await queued(running, waiting)
    closing = asyncio.create_task(batching.aclose())
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    gated.go.release()
    await closing
    assert (await running)[0].tolist() == [0.0]
    assert gated.batches == [["0"]]
    await batching.aclose()  # again


async def test_the_least_recently_used_description_is_dropped(batching):
    for number in (1.0, 2.0):
        batching.keep(str(number), np.array([number], np.float32))
    assert batching.kept("1.0") is not None
    batching.keep("3.0", np.array([3.0], np.float32))
    assert batching.kept("2.0") is None
    assert [batching.kept(name).tolist() for name in ("1.0", "3.0")] == [[1.0], [3.0]]
    assert batching.cache_hits == 3


async def test_keeping_again_counts_as_use(batching):
    for name in ("a", "b", "a", "c"):
        batching.keep(name, np.zeros(1, np.float32))
    assert batching.kept("a") is not None
    assert batching.kept("b") is None


async def test_a_kept_vector_does_not_keep_its_batch(batching):
    batch = np.ones((64, 4), np.float32)
    batching.keep("a", batch[3])
    kept = batching.kept("a")
    assert kept.base is None
    batch[3] = 7
    assert kept.tolist() == [1.0] * 4

"""Encoding for concurrent requests: one pass at a time, batched while the last one runs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from moe_router.gating.encoder import Encoder
from moe_router.gating.weights import Floats
from moe_router.tally import SizeTally

MAX_BATCH = 16
"""Texts in one pass. More gain nothing on a CPU, and while those of one batch are decided upon, the next one
must already be there to be encoded: with 64, 32 callers wait for the encoder all at once, and it for them."""


@dataclass(frozen=True, slots=True)
class EncoderCounts:
    """What the encoder has done since its start."""

    batches: SizeTally
    cache_hits: int
    cache_misses: int


class BatchingEncoder:
    """Encodes on a thread of its own, so that the event loop never waits for a pass.

    What arrives while a pass runs becomes the next batch; nothing waits while the encoder is idle.
    Descriptions repeat, so their vectors are kept, the least recently used dropped first.
    """

    def __init__(self, encoder: Encoder, *, cached: int = 4096) -> None:
        """Takes the encoder and how many descriptions to keep (1.5 kB each)."""
        self.encoder = encoder
        self.passes = 0
        self.batches = SizeTally()
        self.cache_hits = 0
        self.cache_misses = 0
        self._cached = cached
        self._kept: OrderedDict[str, Floats] = OrderedDict()
        self._waiting: list[tuple[str, asyncio.Future[Floats]]] = []
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._worker: asyncio.Task[None] | None = None

    def kept(self, description: str) -> Floats | None:
        """The vector of a description seen before, else None."""
        found = self._kept.get(description)
        if found is not None:
            self._kept.move_to_end(description)
            self.cache_hits += 1
        else:
            self.cache_misses += 1
        return found

    def counts(self) -> EncoderCounts:
        """For metrics."""
        return EncoderCounts(self.batches, self.cache_hits, self.cache_misses)

    def keep(self, description: str, vector: Floats) -> None:
        """Remembers a description's vector."""
        self._kept[description] = vector.copy()  # a row would keep its whole batch in memory
        self._kept.move_to_end(description)
        if len(self._kept) > self._cached:
            self._kept.popitem(last=False)

    async def encode(self, texts: Sequence[str]) -> list[Floats]:
        """Encodes texts in one batch with whatever else is waiting: (hidden,) float32 each.

        A caller that is cancelled takes its texts out of the queue.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        self._waiting += zip(texts, futures, strict=True)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._run())
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()  # does nothing to those that are done

    async def aclose(self) -> None:
        """Cancels what waits and ends the thread."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [(text, future) for text, future in self._waiting[:MAX_BATCH] if not future.cancelled()]
            del self._waiting[:MAX_BATCH]
            if not batch:
                continue
            self.passes += 1
            self.batches.note(len(batch))
            try:
                vectors = await loop.run_in_executor(
                    self._thread, self.encoder.encode, [text for text, _ in batch]
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), vector in zip(batch, vectors, strict=True):
                if not future.done():
                    future.set_result(vector)

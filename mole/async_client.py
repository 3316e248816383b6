"""The asynchronous client of the coordinator, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mole.batches import Batch, Common, Window, cut, perform_batch, size_of
from mole.calls import Call, Item
from mole.connection import DEFAULT_TIMEOUT_S, DEFAULT_URL, Connection
from mole.endpoints import Endpoints
from mole.errors import MoleAPIError, MoleConnectionError
from mole.exchange import Conversation, Outcome, Pause, Reply, problem_of, seconds
from mole.jobs import Lines, check_lines, path_of, to_result
from mole.results import ItemResult
from mole.retry import Retry

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class AsyncMole(Endpoints):
    """`Mole` for asyncio: the same methods, to be awaited; usable as an async context manager.

    Args:
        base_url: Where the coordinator listens.
        api_key: Sent as a bearer token where given.
        timeout_s: Bound on each wait for the answer, in seconds.
        retry: When a request is tried again; `Retry(attempts=1)` never does.
        transport: Another httpx transport, such as an in-process application.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx

        self._connection = Connection(base_url, api_key, timeout_s)
        self.base_url = self._connection.base_url
        self.retry = retry or Retry()
        self._sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        with self._connection.translated():
            self._http = httpx.AsyncClient(transport=transport, **self._connection.arguments())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def classify_many(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        description: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        concurrency: int = 64,
        batch_size: int = 16,
        ordered: bool = True,
        **options: Any,
    ) -> AsyncIterator[ItemResult]:
        """Any number of items, by batches of which several are in flight; results as they arrive.

        Arguments, results and errors as of `Mole.classify_many`; `items` may be an asynchronous iterable.
        """
        size = size_of(batch_size, concurrency)
        at_once = max(1, concurrency // size)
        batches = _cut(items, size, Common(description, fields, options))
        window = Window(at_once, ordered)
        running: dict[asyncio.Task[list[ItemResult]], Batch] = {}
        asks: asyncio.Queue[asyncio.Future[Batch | None]] = asyncio.Queue()
        reader = asyncio.create_task(_read(batches, asks))
        cutting: asyncio.Future[Batch | None] | None = None  # beside those that run: the source may be slow
        more = True
        try:
            while running or more:
                if more and cutting is None and window.room:
                    cutting = asyncio.get_running_loop().create_future()
                    asks.put_nowait(cutting)
                waited: list[asyncio.Future[Any]] = [*running, reader, *([cutting] if cutting else [])]
                finished, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if cutting is not None and cutting in finished:
                    work, cutting = cutting.result(), None
                    if work is None:
                        more = False
                    else:
                        window.start()
                        conversation = perform_batch(work, self.retry, self.base_url)
                        running[asyncio.create_task(self.run(conversation))] = work
                elif reader in finished:
                    reader.result()
                for done in [task for task in running if task in finished]:
                    for result in window.finish(running.pop(done).number, done.result()):
                        yield result
        finally:
            left = [*running, reader]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def job_results(self, job_id: str) -> AsyncIterator[ItemResult]:
        """The finished items of a job by index, read as they arrive.

        Raises:
            MoleAPIError, MoleConnectionError: as `job`; also in the middle.
        """
        async with aclosing(self.job_result_lines(job_id)) as lines:
            async for line in lines:
                try:
                    yield to_result(line)
                except ValueError as error:
                    raise MoleConnectionError(self.base_url, "something else answers there") from error

    async def job_result_lines(self, job_id: str) -> AsyncGenerator[str, None]:
        """The same as JSON Lines, unread.

        Raises:
            MoleAPIError, MoleConnectionError: as `job_results`.
        """
        with self._connection.translated():
            async with self._http.stream("GET", path_of(job_id, "/results")) as response:
                if response.is_error:
                    problem = problem_of(response.status_code, await response.aread())
                    raise MoleAPIError(problem, seconds(response.headers.get("Retry-After")))
                check_lines(response.status_code, response.headers.get("Content-Type", ""), self.base_url)
                lines = Lines()
                async for piece in response.aiter_bytes():
                    for line in lines.add(piece):
                        yield line
                for line in lines.end():
                    yield line

    async def run(self, conversation: Conversation[T]) -> T:
        """Carries a conversation out."""
        outcome: Outcome = None
        while True:
            try:
                step = conversation.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                await self._sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, call: Call[Any]) -> Outcome:
        sent = self._connection.sent(call)
        content = sent["content"]
        if content is not None and not isinstance(content, bytes):
            sent["content"] = _stream(content)
        try:
            with self._connection.translated():
                response = await self._http.request(call.method, call.path, **sent)
        except MoleConnectionError as error:
            return error
        return Reply(response.status_code, response.content, response.headers.get("Retry-After"))


async def _read(batches: AsyncIterator[Batch], asks: asyncio.Queue[asyncio.Future[Batch | None]]) -> None:
    """Reads a batch for each who asks; all in one task, as what the source holds may be the task's own."""
    while True:
        ask = await asks.get()
        try:
            ask.set_result(await anext(batches, None))
        except Exception as error:  # noqa: BLE001  it is the source's own, and goes to whoever asked
            ask.set_exception(error)


async def _cut(
    items: Iterable[Item] | AsyncIterable[Item], size: int, common: Common
) -> AsyncIterator[Batch]:
    """`mole.batches.cut` over either kind of iterable."""
    if not isinstance(items, AsyncIterable):
        for batch in cut(items, size, common):
            yield batch
        return
    number = 0
    chunk: list[dict[str, Any]] = []
    async for item in items:
        chunk.append(common.to_item(item))
        if len(chunk) == size:
            yield Batch(number, number * size, chunk)
            number, chunk = number + 1, []
    if chunk:
        yield Batch(number, number * size, chunk)


async def _stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk

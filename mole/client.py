"""The blocking client of the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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


class Mole(Endpoints):
    """A blocking client with one connection pool; usable from several threads, and as a context manager.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        self._connection = Connection(base_url, api_key, timeout_s)
        self.base_url = self._connection.base_url
        self.retry = retry or Retry()
        self._sleep: Callable[[float], None] = time.sleep
        with self._connection.translated():
            self._http = httpx.Client(transport=transport, **self._connection.arguments())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def classify_many(
        self,
        items: Iterable[Item],
        description: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        concurrency: int = 64,
        batch_size: int = 16,
        ordered: bool = True,
        **options: Any,
    ) -> Iterator[ItemResult]:
        """Any number of items, by batches of which several are in flight; results as they arrive.

        `items` is read as it is needed, so that it may be endless. Closing the iterator ends the work.

        Args:
            items: Texts, or bodies of `classify` requests, whose members come before those given here.
            description: What to find out.
            fields: Values for the template's further names.
            concurrency: Items in flight at once.
            batch_size: Items of one request, 1 to 100.
            ordered: Results in the order of the items; else as they are done.
            **options: As of `classify`.

        Yields:
            Each item's answer or error, with its index.

        Raises:
            MoleAPIError: a whole batch was refused, also after trying again.
            MoleConnectionError: the coordinator did not answer.
        """
        from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

        size = size_of(batch_size, concurrency)
        at_once = max(1, concurrency // size)
        batches = cut(items, size, Common(description, fields, options))
        window = Window(at_once, ordered)
        running: dict[Future[list[ItemResult]], Batch] = {}
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="mole")
        try:
            more = True
            while running or more:
                while more and window.room:
                    work = next(batches, None)
                    if work is None:
                        more = False
                        break
                    window.start()
                    running[pool.submit(self.run, perform_batch(work, self.retry, self.base_url))] = work
                for done in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    yield from window.finish(running.pop(done).number, done.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what is in flight ends by itself

    def job_results(self, job_id: str) -> Iterator[ItemResult]:
        """The finished items of a job by index, read as they arrive.

        Raises:
            MoleAPIError, MoleConnectionError: as `job`; also in the middle.
        """
        for line in self.job_result_lines(job_id):
            try:
                yield to_result(line)
            except ValueError as error:
                raise MoleConnectionError(self.base_url, "something else answers there") from error

    def job_result_lines(self, job_id: str) -> Iterator[str]:
        """The same as JSON Lines, unread.

        Raises:
            MoleAPIError, MoleConnectionError: as `job_results`.
        """
        with (
            self._connection.translated(),
            self._http.stream("GET", path_of(job_id, "/results")) as response,
        ):
            if response.is_error:
                problem = problem_of(response.status_code, response.read())
                raise MoleAPIError(problem, seconds(response.headers.get("Retry-After")))
            check_lines(response.status_code, response.headers.get("Content-Type", ""), self.base_url)
            lines = Lines()
            for piece in response.iter_bytes():
                yield from lines.add(piece)
            yield from lines.end()

    def run(self, conversation: Conversation[T]) -> T:
        """Carries a conversation out."""
        outcome: Outcome = None
        while True:
            try:
                step = conversation.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Pause):
                self._sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def _send(self, call: Call[Any]) -> Outcome:
        try:
            with self._connection.translated():
                response = self._http.request(call.method, call.path, **self._connection.sent(call))
        except MoleConnectionError as error:
            return error
        return Reply(response.status_code, response.content, response.headers.get("Retry-After"))

"""Many items: by batches, in order or as they are done, over a real socket for both clients."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mole import AsyncMole, Mole, MoleAPIError, MoleConnectionError, Retry
from mole.batches import Common, Window, cut
from tests.unit.mole.conftest import ABSTAINED, ANSWER

REFUSED = {"type": "/problems/forbidden", "title": "Forbidden", "status": 403, "detail": "Not you."}
TOO_LARGE = {"type": "/problems/body-too-large", "title": "Too large", "status": 413, "detail": "8 MiB."}
SWIFT = Retry(attempts=3, first_pause_s=0.0)


class Service:
    """Answers batches: an item's text is its label; `wrong …` fails, `unfit …` fits nothing, and so on.

    `hold` is answered once the test says so; what ends with `late` not before that has come.
    """

    def __init__(self) -> None:
        self.url = ""
        self.batches: list[list[dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.most = 0
        self.now = 0
        self.hold = threading.Event()
        self.hold.set()
        self.held = threading.Event()
        self.recovered = False
        self.seen: set[str] = set()
        self.most_bytes = 10**6

    def answer(self, item: dict[str, Any]) -> dict[str, Any]:
        text = item["text"]
        with self.lock:
            first = text not in self.seen
            self.seen.add(text)
        if (
            text.startswith(("wrong", "slow"))
            or (text.startswith("busy") and first)
            or (text.startswith("down") and not self.recovered)
        ):
            status = {"w": 400, "s": 504}.get(text[0], 503)
            return {"error": {"type": "t", "title": "No", "status": status, "detail": text}}
        if text.startswith("unfit"):
            return ABSTAINED
        return {**ANSWER, "result": text}

    def serve(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        with self.lock:
            self.batches.append(items)
            self.now += 1
            self.most = max(self.most, self.now)
        if any(item["text"] == "hold" for item in items):
            self.held.set()
            assert self.hold.wait(60)
        if any(item["text"].endswith("late") for item in items):
            assert self.held.wait(60)
        with self.lock:
            self.now -= 1
        return {"results": [self.answer(item) for item in items]}


@pytest.fixture
def service() -> Iterator[Service]:
    stub = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            problem = TOO_LARGE if len(sent) > stub.most_bytes else REFUSED if b"refused" in sent else None
            served = stub.serve(json.loads(sent)["items"]) if problem is not TOO_LARGE else None
            body = json.dumps(problem or served).encode()
            self.send_response(int(problem["status"]) if problem else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients go, or are killed
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stub
    stub.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_results_come_in_order_by_batches(service: Service):
    texts = [f"t{i}" for i in range(250)]
    with Mole(service.url) as mole:
        found = list(mole.classify_many(iter(texts), "Which?", concurrency=40, batch_size=10, task="a/b"))
    assert [result.index for result in found] == list(range(250))
    assert [result.unwrap().result for result in found] == texts
    assert {len(items) for items in service.batches} == {10}
    asked = {"text": "t0", "description": "Which?", "options": {"task": "a/b"}}
    assert asked in [items[0] for items in service.batches]
    assert service.most <= 4


def test_as_completed_does_not_wait_for_the_slowest(service: Service):
    service.hold.clear()
    with Mole(service.url) as mole:
        found = mole.classify_many(["hold", "a", "b"], concurrency=2, batch_size=1, ordered=False)
        assert [next(found).index, next(found).index] == [1, 2]
        service.hold.set()
        assert [result.index for result in found] == [0]


def test_reading_ahead_is_bounded(service: Service):
    service.hold.clear()
    taken = []

    def texts() -> Iterator[str]:
        yield "hold"
        for i in range(1000):
            taken.append(i)
            if i == 6:  # all that may be read ahead is read: 4 for each of 2 in flight
                service.hold.set()
            yield f"t{i}"

    with Mole(service.url) as mole:
        found = mole.classify_many(texts(), concurrency=2, batch_size=1)
        assert next(found).index == 0
        assert len(taken) < 20
        found.close()


def test_only_items_that_failed_for_a_passing_reason_are_sent_again(service: Service):
    texts = ["ok", "busy", "wrong", "down", "fine"]
    with Mole(service.url, retry=SWIFT) as mole:
        found = mole.classify_batch(texts)
    assert [result.answer is not None for result in found] == [True, True, False, False, True]
    assert [[item["text"] for item in items] for items in service.batches] == [
        texts, ["busy", "down"], ["down"],
    ]  # fmt: skip
    with pytest.raises(MoleAPIError, match="wrong"):
        found[2].unwrap()


def test_a_text_that_is_no_unicode_spoils_no_other(service: Service):
    with Mole(service.url) as mole:
        found = mole.classify_batch(["ok", {"text": "x", "fields": {"a": "\ud800"}}])
    assert found[0].unwrap().result == "ok"
    assert found[1].error is not None
    assert found[1].error.status == 400


def test_a_batch_that_is_too_large_is_sent_in_halves_and_an_item_that_is_says_so(service: Service):
    service.most_bytes = 200
    texts = [*"abcde", "f" * 300, "busy", *"ghi"]
    with Mole(service.url, retry=SWIFT) as mole:
        found = list(mole.classify_many([*texts], "Which?", batch_size=10))
    assert [result.answer.result if result.answer else None for result in found] == [
        None if len(text) == 300 else text for text in texts
    ]
    error = found[5].error
    assert error is not None
    assert (found[5].index, error.status, error.detail) == (5, 413, "8 MiB.")


def test_a_batch_that_is_no_batch_is_something_else(service: Service, monkeypatch):
    for broken in ({"results": []}, {"results": [1]}, {"results": [{"index": 1}]}, {}):
        monkeypatch.setattr(service, "serve", lambda _items, broken=broken: broken)
        with Mole(service.url) as mole, pytest.raises(MoleConnectionError, match="something else"):
            list(mole.classify_many(["x"]))


def test_no_service_ends_the_run():
    with Mole("http://127.0.0.1:9", retry=Retry(attempts=1)) as mole, pytest.raises(MoleConnectionError):
        list(mole.classify_many(["x"] * 100, batch_size=10))


async def test_the_async_client_does_the_same(service: Service):
    texts = [f"t{i}" for i in range(60)]
    async with AsyncMole(service.url, retry=SWIFT) as mole:
        found = [r async for r in mole.classify_many(texts, concurrency=20, batch_size=5)]
        assert [result.unwrap().result for result in found] == texts
        assert [r.error is None for r in await mole.classify_batch(["busy", "wrong"])] == [True, False]
        service.hold.clear()
        early = mole.classify_many(["hold", "a"], concurrency=2, batch_size=1, ordered=False)
        assert (await anext(early)).index == 1
        await early.aclose()  # cancels what is in flight


async def test_the_async_client_reads_asynchronous_iterables(service: Service):
    async def texts() -> AsyncIterator[str]:
        for i in range(7):
            await asyncio.sleep(0)
            yield f"t{i}"

    async with AsyncMole(service.url) as mole:
        found = [r async for r in mole.classify_many(texts(), concurrency=4, batch_size=3)]
    assert [(r.index, r.unwrap().result) for r in found] == [(i, f"t{i}") for i in range(7)]
    assert sorted(len(items) for items in service.batches) == [1, 3, 3]


async def test_results_do_not_wait_for_a_slow_source(service: Service):
    answered = asyncio.Event()

    async def texts() -> AsyncIterator[str]:
        yield "t0"
        await asyncio.wait_for(answered.wait(), 10)  # as a conversation's next turn does
        yield "t1"

    async with AsyncMole(service.url) as mole:
        found = []
        async for result in mole.classify_many(texts(), concurrency=4, batch_size=1):
            found.append(result.unwrap().result)
            answered.set()
    assert found == ["t0", "t1"]


async def test_a_source_is_read_in_one_task_from_first_to_last(service: Service):
    inside: ContextVar[str] = ContextVar("inside")

    async def texts() -> AsyncIterator[str]:
        token, task = inside.set("yes"), asyncio.current_task()
        async with asyncio.timeout(10):
            for i in range(3):
                yield f"t{i}"
                assert asyncio.current_task() is task
        inside.reset(token)

    async with AsyncMole(service.url) as mole:
        found = [r.unwrap().result async for r in mole.classify_many(texts(), concurrency=2, batch_size=1)]
    assert found == ["t0", "t1", "t2"]


async def test_a_source_that_fails_or_is_left_ends_the_work(service: Service):
    async def failing() -> AsyncIterator[str]:
        yield "t0"
        raise LookupError("the source is gone")

    closed = []

    async def endless() -> AsyncIterator[str]:
        try:
            yield "t0"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async with AsyncMole(service.url) as mole:
        with pytest.raises(LookupError, match="the source is gone"):
            [r async for r in mole.classify_many(failing(), concurrency=4, batch_size=1)]
        early = mole.classify_many(endless(), concurrency=4, batch_size=1)
        assert (await anext(early)).index == 0
        await early.aclose()
    assert closed


async def test_the_async_client_speaks_every_endpoint(coordinator, answer):
    pauses: list[float] = []

    async def note(pause: float) -> None:
        pauses.append(pause)

    coordinator.answers(answer)
    async with AsyncMole(coordinator.url, api_key="k", retry=Retry(attempts=2)) as mole:
        mole._sleep = note
        one, two = await asyncio.gather(mole.classify("x", timeout_seconds=5), mole.classify("y"))
        assert one.result == two.result == "positive"
        coordinator.answers({"tasks": []})
        assert await mole.tasks() == []
        job = {"job_id": "j", "state": "queued", "total": 1, "done": 0, "failed": 0, "created_at": "now"}
        coordinator.answers(job, 202)
        assert (await mole.submit_job([{"text": "x"}, "y"])).job_id == "j"
        assert coordinator.asked[-1][2] == b'{"text": "x"}\n{"text": "y"}\n'
        line = (json.dumps({"index": 0, **answer}) + "\n").encode()
        coordinator.answers(line, Content_Type="application/x-ndjson")
        assert [result.index async for result in mole.job_results("j")] == [0]
        coordinator.answers({"type": "t", "title": "Gone", "status": 503, "detail": "All down."}, 503)
        with pytest.raises(MoleAPIError, match="All down"):
            await mole.tasks()
        with pytest.raises(MoleAPIError, match="All down"):
            await anext(mole.job_results("j"))
        assert len(pauses) == 1


def test_own_members_come_before_common_ones():
    common = Common("Which?", None, {"task": "a/b", "via": "expert", "language": None})
    (batch,) = cut(["x", {"text": "y", "description": None, "options": {"task": "c/d"}}], 10, common)
    assert batch.items == [
        {"text": "x", "description": "Which?", "options": {"task": "a/b", "via": "expert"}},
        {"text": "y", "description": "Which?", "options": {"task": "c/d", "via": "expert"}},
    ]


def test_the_window_bounds_what_is_in_flight_and_what_is_ahead():
    window = Window(2, ordered=True)
    window.start()
    window.start()
    assert not window.room
    for number in range(1, 8):
        assert list(window.finish(number, [])) == []
        assert window.room is (number < 7)
        if window.room:
            window.start()


def test_both_clients_have_the_same_methods_and_say_what_they_do():
    for name in ("classify", "route", "classify_batch", "feedback", "submit_job", "tasks", "health"):
        for client in (Mole, AsyncMole):
            assert getattr(client, name).__doc__
    told = {name for name in dir(Mole) if not name.startswith("_")}
    assert told - {"close"} == {name for name in dir(AsyncMole) if not name.startswith("_")} - {"aclose"}
    with Mole() as mole:
        assert mole.classify.__name__ == "classify"
        told = str(inspect.signature(mole.classify))
        assert told.startswith("(text: 'str', description: 'str | None' = None, *, fields")
        assert told.endswith("-> 'ClassifyAnswer'")
        assert str(inspect.signature(mole.classify_batch)).endswith("-> 'list[ItemResult]'")
        assert "Args:" in (mole.classify.__doc__ or "")

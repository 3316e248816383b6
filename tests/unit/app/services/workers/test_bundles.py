from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from app.services.ports import Call
from app.services.workers import bundles as module
from moe_router.errors import MoleError, OverloadedError, RequestError
from tests.stubs import files
from tests.stubs.serving import question, until
from tests.unit.app.services.test_experts_http import GOOD, TASK, A, B, Scene, raising, status


async def ask(
    scene: Scene, text: str, *, caller: str = "me", timeout_s: float = 10.0, task_key: str = files.SENTIMENT
) -> str:
    expert = scene.registry.experts_for(files.SENTIMENT, "en")[0]
    request = question(text, task_key, request_id=text)
    call = Call(text, time.monotonic() + timeout_s, caller=caller, bundled=True)
    worker_id, answer = await scene.experts.classify(expert, TASK, request, call)
    assert answer.request_id == text, "each gets its own answer"
    return worker_id


async def ask_all(scene: Scene, *texts: str) -> list[str | BaseException]:
    return await asyncio.gather(*(ask(scene, text) for text in texts), return_exceptions=True)


class Batches:
    """Answers batches and single questions; `wrong` says what it answers to some of the texts."""

    def __init__(self, wrong: dict[str, Any] | None = None) -> None:
        self.wrong = wrong or {}
        self.asked: list[list[str]] = []
        self.timeouts_ms: list[int] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.cancelled = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        whole = request.url.path.endswith("/batch")
        items = asked["items"] if whole else [asked]
        self.asked.append([item["text"] for item in items])
        self.timeouts_ms.append(int(request.headers["X-MoLE-Timeout-Ms"]))
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        results = [self.wrong.get(item["text"], {**GOOD, "request_id": item["request_id"]}) for item in items]
        return httpx.Response(200, json={"results": results} if whole else results[0])


def problem(code: int, slug: str) -> dict[str, Any]:
    document = {"type": f"/problems/{slug}", "title": "x", "status": code, "detail": "what the worker said"}
    return {"error": document}


async def scene_with(*workers: Any) -> Scene:
    scene = await Scene(*(A, B)[: len(workers)], max_in_flight=64).open()
    scene.answers = {httpx.URL(url).host: worker for url, worker in zip((A, B), workers, strict=False)}
    return scene


async def test_what_is_asked_at_once_is_one_request() -> None:
    worker = Batches()
    scene = await scene_with(worker)
    assert await ask_all(scene, "a", "b", "c") == ["worker-0"] * 3
    assert worker.asked == [["a", "b", "c"]]
    assert all(worker.outstanding == 0 for worker in scene.fleet.all)


async def test_one_question_is_asked_as_ever() -> None:
    worker = Batches()
    scene = await scene_with(worker)
    assert await ask(scene, "a") == "worker-0"
    assert scene.bodies[0]["text"] == "a"


async def test_a_request_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Batches()
    scene = await scene_with(worker)
    texts = [f"t{i}" for i in range(module.MOST_ITEMS + 3)]
    await ask_all(scene, *texts)
    assert worker.asked == [texts[: module.MOST_ITEMS], texts[module.MOST_ITEMS :]]
    worker.asked.clear()
    monkeypatch.setattr(module, "MOST_BYTES", 200)
    await ask_all(scene, "a" * 60, "b" * 60, "c" * 60)
    assert [len(texts) for texts in worker.asked] == [1, 1, 1]


async def test_callers_share_no_request() -> None:
    worker = Batches()
    scene = await scene_with(worker)
    await asyncio.gather(ask(scene, "a", caller="one"), ask(scene, "b", caller="other"))
    assert worker.asked == [["a"], ["b"]]


async def test_what_may_take_longer_is_asked_apart() -> None:
    worker = Batches()
    scene = await scene_with(worker)
    await asyncio.gather(
        ask(scene, "a", timeout_s=3),
        ask(scene, "b", timeout_s=3),
        ask(scene, "another-task", timeout_s=3, task_key=files.PII),
        ask(scene, "patient", timeout_s=6),
    )
    assert worker.asked == [["a", "b"], ["another-task"], ["patient"]]


async def test_an_item_fails_by_itself() -> None:
    worker = Batches({"b": problem(400, RequestError.slug), "c": {"result": "positive"}})
    scene = await scene_with(worker)
    first, second, third = await ask_all(scene, "a", "b", "c")
    assert first == "worker-0"
    assert isinstance(second, MoleError)
    assert (second.status, second.detail) == (400, "what the worker said")
    assert isinstance(third, MoleError)
    assert third.status == 502
    assert scene.fleet.all[0].breaker.open_until is None


async def test_items_go_on_to_another_worker_each_by_itself() -> None:
    full = Batches({"b": problem(503, OverloadedError.slug), "c": problem(503, OverloadedError.slug)})
    good = Batches()
    scene = await scene_with(full, good)
    scene.fleet.all[1].outstanding = 5  # asked second
    assert await ask_all(scene, "a", "b", "c") == ["worker-0", "worker-1", "worker-1"]
    assert good.asked == [["b"], ["c"]]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(status(500), id="500"),
        pytest.param(lambda _: asyncio.sleep(0, httpx.Response(200, json={"results": []})), id="too-few"),
        pytest.param(lambda _: asyncio.sleep(0, httpx.Response(200, content=b"{")), id="no-json"),
    ],
)
async def test_a_request_that_fails_is_one_failure_of_its_worker(answer: Any) -> None:
    good = Batches()
    scene = await scene_with(answer, good)
    scene.fleet.all[1].outstanding = 5
    assert await ask_all(scene, "a", "b", "c") == ["worker-1"] * 3
    assert scene.fleet.all[0].breaker.failures == 1
    assert scene.fleet.all[0].breaker.open_until is None  # two open it


async def test_a_fault_that_nobody_expected_reaches_every_asker() -> None:
    scene = await scene_with(raising(KeyError("x")))
    found = await ask_all(scene, "a", "b")
    assert [type(error) for error in found] == [KeyError, KeyError]


async def test_each_has_its_own_deadline() -> None:
    worker = Batches()
    worker.hold.clear()
    scene = await scene_with(worker)
    hasty, patient = (
        asyncio.create_task(ask(scene, "a", timeout_s=1.05)),
        asyncio.create_task(ask(scene, "b", timeout_s=1.95)),
    )
    with pytest.raises(MoleError) as failed:
        await hasty
    assert failed.value.status == 504
    assert not patient.done()
    worker.hold.set()
    assert await patient == "worker-0"
    assert worker.asked == [["a", "b"]]
    assert worker.timeouts_ms[0] > 1050, "the worker is told the longest"


async def test_the_request_ends_when_nobody_waits_any_more() -> None:
    worker = Batches()
    worker.hold.clear()
    scene = await scene_with(worker)
    first, second = asyncio.create_task(ask(scene, "a")), asyncio.create_task(ask(scene, "b"))
    await until(lambda: bool(worker.asked))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert worker.cancelled == 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await until(lambda: worker.cancelled == 1)
    assert scene.fleet.all[0].outstanding == 0


async def test_who_is_gone_at_once_asks_nothing() -> None:
    worker = Batches()
    scene = await scene_with(worker)
    task = asyncio.create_task(ask(scene, "a"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert worker.asked == []

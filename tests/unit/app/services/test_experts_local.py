from __future__ import annotations

import asyncio
import time

import pytest

from app.services.experts_local import LOCAL, LocalExperts
from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from moe_router.errors import ModelAssetError, MoleError, NoWorkerError, OverloadedError
from moe_router.experts.engines.base import ServerAwayError
from moe_router.members import ExpertMembers
from moe_router.registry import Registry
from tests.stubs import files, pool
from tests.stubs.serving import mapping, question, registry, until

URLS = ("http://a:1",)

TASK = registry().task(files.SENTIMENT)


def call() -> Call:
    return Call("id", time.monotonic() + 10)


def ask(text: str = "positive") -> ExpertMembers:
    return question(text)


class Scene:
    def __init__(self) -> None:
        self.pools: list[pool.StubPool] = []
        self.experts = LocalExperts(self._make, Metrics())
        self.expert = registry().experts_for(files.SENTIMENT, "en")[0]

    def _make(self, given: Registry) -> pool.StubPool:
        self.pools.append(pool.StubPool(given, files.MODEL))
        return self.pools[-1]


async def test_it_answers_as_one_worker() -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))
    worker_id, answer = await scene.experts.classify(scene.expert, TASK, ask(), call())
    assert (worker_id, answer.result) == (LOCAL, "positive")
    assert scene.experts.candidates(scene.expert) == [LOCAL]
    told = scene.experts.workers()[0]
    assert (told.worker_id, told.model_key, told.state) == (LOCAL, files.MODEL, "healthy")
    assert set(told.tasks) == set(files.registry()["tasks"])
    assert told.adapters == ["fin"]
    assert scene.pools[0].deadlines[-1] is not None


async def test_the_model_of_most_tasks_is_loaded_ahead() -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))
    await until(lambda: len(scene.pools[0].seen) == 1)
    assert scene.pools[0].seen[0].task_key in files.registry()["tasks"]
    await scene.experts.aclose()


async def test_errors_of_the_pool_keep_their_kind() -> None:
    scene = Scene()
    with pytest.raises(NoWorkerError):
        await scene.experts.classify(scene.expert, TASK, ask(), call())
    await scene.experts.use(registry(), mapping(*URLS))
    with pytest.raises(OverloadedError):
        await scene.experts.classify(scene.expert, TASK, ask(pool.FULL), call())


@pytest.mark.parametrize("error", [ModelAssetError, NoWorkerError, ServerAwayError])
async def test_why_a_task_cannot_be_served_is_for_the_log(
    error: type[MoleError], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))

    async def cannot_load(*_: object, **__: object) -> None:
        raise error("no such folder: /srv/models at http://llm:8080")

    monkeypatch.setattr(scene.pools[0], "classify", cannot_load)
    with pytest.raises(NoWorkerError) as caught:
        await scene.experts.classify(scene.expert, TASK, ask(), call())
    assert caught.value.detail == f"{files.SENTIMENT} cannot be served now."
    assert "no such folder: /srv/models at http://llm:8080" in caplog.text
    with pytest.raises(NoWorkerError):
        await scene.experts.classify(scene.expert, TASK, ask(), call())
    assert caplog.text.count("no such folder") == 1


async def test_a_model_that_could_not_be_loaded_is_told_as_down_and_not_tried() -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))
    scene.pools[0].failed[files.MODEL] = "the disk is gone"
    told = {worker.model_key: (worker.state, worker.reason) for worker in scene.experts.workers()}
    assert told.pop(files.MODEL) == ("down", "the disk is gone")
    assert set(told.values()) <= {("healthy", None)}
    assert not scene.experts.reachable(scene.expert)
    assert scene.experts.candidates(scene.expert) == []
    assert scene.experts.served(files.MODEL)
    scene.pools[0].failed.clear()
    assert scene.experts.reachable(scene.expert)
    await scene.experts.aclose()


async def test_another_registry_is_served_by_the_same_pool() -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))
    waiting = asyncio.create_task(scene.experts.classify(scene.expert, TASK, ask(pool.WAIT), call()))
    await until(lambda: scene.pools[0].depth == 1)
    data = files.registry()
    data["tasks"].popitem()
    edited = Registry.model_validate(data)
    await scene.experts.use(edited, mapping(*URLS))
    assert len(scene.pools) == 1
    assert scene.pools[0].registry == edited
    scene.pools[0].gate.set()
    assert (await waiting)[0] == LOCAL
    await scene.experts.aclose()


async def test_an_edit_that_cannot_be_served_is_refused_and_the_old_stays() -> None:
    scene = Scene()
    await scene.experts.use(registry(), mapping(*URLS))
    data = files.registry()
    data["tasks"][pool.UNSERVABLE] = data["tasks"][files.SENTIMENT]
    with pytest.raises(ModelAssetError):
        await scene.experts.use(Registry.model_validate(data), mapping(*URLS))
    assert pool.UNSERVABLE not in scene.experts.workers()[0].tasks
    assert (await scene.experts.classify(scene.expert, TASK, ask(), call()))[0] == LOCAL
    await scene.experts.aclose()

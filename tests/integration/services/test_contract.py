"""The real worker application, asked by the coordinator's own client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.services.experts_http import HttpExperts
from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from app.services.workers.client import WorkerClient
from app.services.workers.fleet import Fleet
from app.services.workers.prober import Prober
from expert_worker.main import create_app
from expert_worker.settings import Settings
from moe_router.errors import DeadlineError, OverloadedError, WorkerAnswerError
from moe_router.registry import Registry
from tests.stubs import files, pool
from tests.stubs.http import HttpxHttp
from tests.stubs.serving import mapping, question, registry, until

TOKEN = "between us"


class Scene:
    def __init__(self, experts: HttpExperts, prober: Prober, stub: pool.StubPool) -> None:
        self.experts = experts
        self.prober = prober
        self.stub = stub

    async def ask(self, text: str, task_key: str = files.SENTIMENT, timeout_s: float = 10.0) -> str:
        expert = registry().experts_for(task_key, "en")[0]
        request = question(text, task_key, "id-1")
        request["return_probabilities"] = True
        call = Call("id-1", time.monotonic() + timeout_s)
        _, answer = await self.experts.classify(expert, registry().task(task_key), request, call)
        assert answer.request_id == "id-1"
        return answer.result


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    files.write(tmp_path, files.mapping("http://worker"))
    settings = Settings(model_key=files.MODEL, config_path=tmp_path, token=TOKEN)
    pools: list[pool.StubPool] = []

    def build(given: Registry, _settings: Settings) -> pool.StubPool:
        pools.append(pool.StubPool(given, files.MODEL))
        return pools[-1]

    app = create_app(settings, build_pool=build)
    async with app.router.lifespan_context(app):
        await until(lambda: app.state.service.status == "ready")
        client = WorkerClient(HttpxHttp(httpx.ASGITransport(app)), TOKEN)
        fleet = Fleet(eject_after=1, eject_s=60, max_in_flight=8)
        prober = Prober(fleet, client, interval_s=60, timeout_s=5)
        experts = HttpExperts(fleet, client, prober, Metrics(), attempt_timeout_s=30)
        await experts.use(registry(), mapping("http://worker"))
        await prober.probe_all()
        yield Scene(experts, prober, pools[0])
        await experts.aclose()


async def test_labels_and_entities_come_through(scene: Scene) -> None:
    assert await scene.ask("neutral") == "neutral"
    assert await scene.ask("Ann is here", files.PII) == "entities"
    told = scene.experts.workers()[0]
    assert (told.state, set(told.tasks)) == ("healthy", set(files.registry()["tasks"]))


async def test_the_workers_errors_keep_their_meaning(scene: Scene) -> None:
    with pytest.raises(OverloadedError):
        await scene.ask(pool.FULL)
    assert scene.experts.workers()[0].state == "healthy"
    with pytest.raises(DeadlineError):
        await scene.ask(pool.WAIT, timeout_s=0.05)
    assert scene.experts.workers()[0].state == "healthy"
    with pytest.raises(WorkerAnswerError):
        await scene.ask(pool.BREAK)
    assert scene.experts.workers()[0].state == "ejected"


async def test_the_deadline_reaches_the_pool(scene: Scene) -> None:
    await scene.ask("neutral", timeout_s=3)
    deadline = scene.stub.deadlines[-1]
    assert deadline is not None
    assert deadline <= time.monotonic() + 3

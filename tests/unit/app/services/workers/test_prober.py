from __future__ import annotations

import json

import httpx
import pytest

from app.services.workers.client import WorkerClient
from app.services.workers.fleet import Fleet
from app.services.workers.prober import Prober
from tests.stubs import files
from tests.stubs.http import HttpxHttp
from tests.stubs.serving import mapping, until

TASK = {"task_key": files.SENTIMENT, "languages": None, "labels": files.LABELS, "adapters": ["fin"]}


class Scene:
    def __init__(self) -> None:
        self.status = 200
        self.broken: Exception | None = None
        self.health: dict[str, object] = {
            "status": "ready",
            "worker_id": "w",
            "model_key": files.MODEL,
            "progress": 1.0,
            "queue_depth": 3,
        }
        self.tasks = httpx.Response(200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": [TASK]})
        self.trial = httpx.Response(500)
        self.trials = 0
        self.tried: list[str | None] = []
        self.languages: list[str] = []
        self.now = 0.0
        client = WorkerClient(HttpxHttp(httpx.MockTransport(self._handle)), None)
        self.fleet = Fleet(eject_after=3, eject_s=1, max_in_flight=8, clock=lambda: self.now)
        self.fleet.use(mapping("http://a:1"))
        self.prober = Prober(self.fleet, client, interval_s=0.01, timeout_s=1)

    @property
    def state(self) -> str:
        return self.fleet.infos()[0].state

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/health/ready"):
            if self.broken is not None:
                raise self.broken
            return httpx.Response(self.status, json=self.health)
        if request.url.path.endswith("/tasks"):
            return self.tasks
        self.trials += 1
        asked = json.loads(request.content)
        self.tried.append(asked.get("adapter_name"))
        self.languages.append(asked["language"])
        return self.trial


async def test_a_ready_worker_is_healthy_and_says_what_it_serves() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    told = scene.fleet.infos()[0]
    assert (told.state, told.queue_depth, told.tasks) == ("healthy", 3, [files.SENTIMENT])


@pytest.mark.parametrize(
    ("said", "state"), [("loading", "loading"), ("draining", "draining"), ("failed", "down")]
)
async def test_what_a_worker_says_of_itself(said: str, state: str) -> None:
    scene = Scene()
    scene.status, scene.health["status"] = 503, said
    scene.health["detail"] = "reading weights"
    await scene.prober.probe_all()
    assert scene.state == state
    assert "reading weights" in (scene.fleet.infos()[0].reason or "")


async def test_what_cannot_be_reached_or_understood_is_down() -> None:
    scene = Scene()
    scene.broken = httpx.ConnectError("refused")
    await scene.prober.probe_all()
    assert scene.state == "down"
    scene.broken, scene.health = None, {"hello": "world"}
    await scene.prober.probe_all()
    assert scene.state == "down"


async def test_one_probe_without_an_answer_takes_no_worker_out() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    scene.broken = httpx.ReadError("stalled")
    await scene.prober.probe_all()
    assert scene.state == "healthy"
    await scene.prober.probe_all()
    assert scene.state == "down"
    scene.broken = None
    await scene.prober.probe_all()
    assert scene.state == "healthy"
    scene.broken = httpx.ConnectError("refused")
    await scene.prober.probe_all()
    assert scene.state == "down"


@pytest.mark.parametrize("where", ["health", "tasks"])
async def test_another_model_is_refused(where: str) -> None:
    scene = Scene()
    if where == "health":
        scene.health["model_key"] = "other"
    else:
        scene.tasks = httpx.Response(200, json={"worker_id": "w", "model_key": "other", "tasks": []})
    await scene.prober.probe_all()
    assert scene.state == "refused"


async def test_who_was_refused_stays_so_until_its_tasks_are_right() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    right, scene.tasks = (
        scene.tasks,
        httpx.Response(200, json={"worker_id": "w", "model_key": "other", "tasks": []}),
    )
    scene.fleet.all[0].refuse("it answers for another model")
    await scene.prober.probe_all()
    await scene.prober.probe_all()
    assert scene.state == "refused"
    scene.tasks = right
    await scene.prober.probe_all()
    assert scene.state == "healthy"


async def test_a_refused_token_is_told() -> None:
    scene = Scene()
    scene.tasks = httpx.Response(401, json={})
    await scene.prober.probe_all()
    assert scene.state == "refused"
    assert "token" in (scene.fleet.infos()[0].reason or "")


async def test_after_an_edit_each_round_reads_what_a_worker_serves() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    scene.prober.expect_tasks()
    await scene.prober.probe_all()
    assert scene.fleet.infos()[0].tasks == [files.SENTIMENT], "the old list holds meanwhile"
    more = [TASK, {**TASK, "task_key": "new/task"}]
    scene.tasks = httpx.Response(200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": more})
    await scene.prober.probe_all()
    assert scene.fleet.infos()[0].tasks == [files.SENTIMENT, "new/task"]


async def test_a_trial_asks_for_what_is_served_now() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    scene.fleet.all[0].breaker.failed(0, 0, "reset", at_once=True)
    scene.now = 2
    renamed = {**TASK, "adapters": ["fin-v2"]}
    scene.tasks = httpx.Response(200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": [renamed]})
    await scene.prober.probe_all()
    await until(lambda: scene.trials == 1)
    assert scene.tried == ["fin-v2"]
    await scene.prober.aclose()


async def test_health_alone_closes_no_breaker_but_a_trial_does() -> None:
    scene = Scene()
    await scene.prober.probe_all()
    breaker = scene.fleet.all[0].breaker
    breaker.failed(0, 0, "reset", at_once=True)
    await scene.prober.probe_all()
    assert (scene.state, scene.trials) == ("ejected", 0)
    scene.now = 2
    await scene.prober.probe_all()
    await until(lambda: breaker.open_until == 4.0)
    assert (scene.state, scene.trials) == ("ejected", 1)
    scene.now = 4
    answer = {"result": "positive", "confidence": 1, "worker_id": "w", "adapter_name": "fin"}
    scene.trial = httpx.Response(200, json={**answer, "model_key": files.MODEL, "processing_time_ms": 1})
    await scene.prober.probe_all()
    await until(lambda: scene.state == "healthy")
    await scene.prober.aclose()


async def test_a_trial_that_one_expert_cannot_answer_says_nothing_and_the_next_asks_another() -> None:
    scene = Scene()
    bare = {**TASK, "languages": ["de", "zh"], "adapters": []}
    scene.tasks = httpx.Response(
        200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": [bare, TASK]}
    )
    await scene.prober.probe_all()
    breaker = scene.fleet.all[0].breaker
    breaker.failed(0, 0, "reset", at_once=True)
    scene.now = 2
    problem = {"type": "/problems/no-worker", "title": "", "status": 503, "detail": "it is on another model"}
    scene.trial = httpx.Response(503, json=problem)
    for trials, asked in ((1, "de"), (2, "zh"), (3, "en"), (4, "de")):
        await scene.prober.probe_all()
        await until(lambda: scene.trials == trials and not breaker.trial)  # noqa: B023 - awaited at once
        assert scene.languages[-1] == asked
        assert breaker.allows(scene.now), "a caller's request may decide meanwhile"
    assert scene.tried == [None, None, "fin", None]
    await scene.prober.aclose()


async def test_it_survives_a_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    rounds = []
    real = scene.prober.probe_all

    async def broken() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise RuntimeError("a fault of ours")
        await real()

    monkeypatch.setattr(scene.prober, "probe_all", broken)
    scene.prober.start()
    await until(lambda: scene.state == "healthy")
    await scene.prober.aclose()


async def test_a_worker_whose_tasks_no_request_can_name_is_tried_again() -> None:
    scene = Scene()
    odd = {**TASK, "languages": ["not-a-language"]}
    scene.tasks = httpx.Response(200, json={"worker_id": "w", "model_key": files.MODEL, "tasks": [odd]})
    await scene.prober.probe_all()
    breaker = scene.fleet.all[0].breaker
    breaker.failed(0, 0, "reset", at_once=True)
    scene.now = 2
    await scene.prober.probe_all()
    await until(lambda: breaker.open_until == 4.0)
    assert breaker.allows(4)
    assert "language" in (breaker.reason or "")
    await scene.prober.aclose()

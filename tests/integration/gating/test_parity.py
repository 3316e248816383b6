"""`/route`, `/classify` and `mole evaluate gating` decide alike, whatever is asked of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.messages import to_json
from app.services.classification import Classification
from app.services.limits import Limits
from app.services.ports import Call
from app.services.telemetry.metrics import Metrics
from app.services.telemetry.stats import Stats
from app.services.waiting import FairGate
from moe_router.contracts import ClassifyAnswer, ClassifyRequest, ExpertAnswer
from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.members import ExpertMembers
from moe_router.registry import Expert, TaskSpec, load_registry
from moe_router.training.evaluate import judge
from moe_router.training.phrasings import load_phrasings
from moe_router.training.requests import Request, Text, load_texts
from mole.settings import CommandSettings
from tests.integration.gating.conftest import ROOT

ASKED = [p for p in load_phrasings() if p.split == "test"]
TEXTS = [*load_texts(None, "validation", 0, 0), Text("???", "general/topic_classification", "en")]


class Answering:
    """Experts that can always be asked, and answer with the first label."""

    def served(self, _model_key: str) -> bool:
        return True

    def reachable(self, _expert: Expert) -> bool:
        return True

    def on_trial(self, _expert: Expert) -> bool:
        return False

    def candidates(self, _expert: Expert) -> list[str]:
        return ["w"]

    async def classify(
        self, expert: Expert, task: TaskSpec, _request: ExpertMembers, _call: Call
    ) -> tuple[str, ExpertAnswer]:
        return "w", ExpertAnswer(
            result=task.label_set[0], confidence=0.9, worker_id="w", model_key=expert.base_model_key,
            adapter_name=None, processing_time_ms=1.0,
        )  # fmt: skip


class World:
    """The pipeline behind the services, on a loop that lasts over all examples."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        registry = load_registry(ROOT / "config" / "demo" / "experts_registry.json")
        config = GatingConfig(CommandSettings().cache, threads=2)
        self.pipeline = GatingPipeline.load(registry, config)
        self.service = Classification(
            self.pipeline, Answering(), registry, gate=FairGate(8, 8), limits=Limits(50_000, 2_000),
            default_timeout_s=60.0, metrics=Metrics(), stats=Stats(),
        )  # type: ignore[arg-type]  # fmt: skip

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.pipeline.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    found = World()
    yield found
    found.close()


def call() -> Call:
    return Call("r", time.monotonic() + 60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), st.none() | st.sampled_from(ASKED), st.sampled_from(["auto", "expert"]))
def test_all_three_decide_alike(world, text, asked, via):
    described = asked.text if asked is not None else None
    request = ClassifyRequest(
        text=text.text, description=described, options={"via": via, "return_probabilities": True}
    )
    route = world.run(world.service.route(request, call()))
    found, _ = world.run(world.service.classify(request, call()))
    answer = ClassifyAnswer(**found)
    assert to_json(found) == answer.model_dump_json().encode()  # the models' numbers are Python's own
    judged = world.run(judge(world.pipeline, Request(asked, text, "", "matching")))
    decision = judged.decision
    assert route.task == answer.task == (decision.task if decision.abstained is None else None)
    assert route.language == answer.language == decision.language
    assert route.domain == answer.domain == decision.domain
    reasons = [one.abstained.reason if one.abstained else None for one in (route, answer, decision)]
    assert len(set(reasons)) == 1
    assert route.task_probabilities == pytest.approx(decision.task_probabilities, abs=2e-3)

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from app.api.messages import to_json
from app.services.classification import Classification
from app.services.limits import Limits
from app.services.ports import AttemptTimeoutError, Call
from app.services.telemetry.metrics import Metrics
from app.services.telemetry.stats import Stats
from app.services.waiting import FairGate
from moe_router.contracts import ClassifyAnswer, ClassifyRequest, ExpertAnswer, ExpertRequest, WorkerInfo
from moe_router.errors import (
    AbstainedError,
    DeadlineError,
    MissingFieldError,
    MoleError,
    NoWorkerError,
    UnknownTaskError,
    UnsupportedLanguageError,
    WorkerAnswerError,
)
from moe_router.gating.decision import Decision
from moe_router.gating.opinion_pool import OpinionPool
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import Action, Observation
from moe_router.mapping import WorkerMapping
from moe_router.members import ExpertMembers
from moe_router.registry import Expert, Registry, TaskSpec
from tests.stubs import files
from tests.stubs.gating import NOTHING_FITS, StubGating

CASCADE = "general/cascade"


def registry() -> Registry:
    data = files.registry()
    data["tasks"][CASCADE] = {
        "base_model_key": files.MODEL,
        "label_set": ["a", "b"],
        "experts": [
            {"name": "small", "base_model_key": files.MODEL, "cost": 1},
            {"name": "large", "base_model_key": files.MODEL, "cost": 5},
        ],
    }
    return Registry.model_validate(data)


class CascadeGating(StubGating):
    """Goes on to the next expert while the last one is unsure."""

    def next_action(
        self,
        decision: Decision,
        observations: Sequence[Observation],
        *,
        reachable: Callable[[Expert], bool],
    ) -> Action:
        asked = {o.action.expert for o in observations}
        left = [e for e in self.candidates(decision, reachable=reachable) if e not in asked and reachable(e)]
        if observations and (observations[-1].confidence > 0.8 or not left):
            return Action("accept", observations[-1].action.expert, len(observations) - 1)
        if not left:
            raise NoWorkerError("none")
        return Action("expert", left[0])


class ScriptedGating(StubGating):
    """Takes the actions of `script` in turn; the probe and the expert have a pool."""

    script: tuple[str, ...] = ("probe", "expert", "accept")

    def _probe(self, task_key: str) -> ProbeAnswer | None:
        table = {"negative": 0.8, "positive": 0.15, "neutral": 0.05}
        pools = {(files.MODEL, "fin"): OpinionPool(1.0, 1.0)}
        return ProbeAnswer("negative", 0.8, 0.65, table, pools)

    def next_action(
        self, decision: Decision, observations: Sequence[Observation], **_: Callable[[Expert], bool]
    ) -> Action:
        kind = self.script[len(observations)]
        if kind == "expert":
            return Action("expert", self.candidates(decision, reachable=lambda _: True)[0])
        if kind == "accept":
            return Action("accept", observations[-1].action.expert, len(observations) - 1)
        return Action("probe") if kind == "probe" else Action("abstain")


class DecidedGating(ScriptedGating):
    script = ("expert", "accept")


class WithholdingGating(ScriptedGating):
    script = ("probe", "expert", "abstain")


class TestExperts:
    __test__ = False

    def __init__(self) -> None:
        self.faults: dict[str, MoleError] = {}
        self.confidence = {"small": 0.4, "large": 0.9}
        self.asked: list[ExpertRequest] = []
        self.delay_s = 0.0
        self.trials: set[str] = set()

    def served(self, model_key: str) -> bool:
        return model_key == files.MODEL

    def reachable(self, expert: Expert) -> bool:
        return "gone" not in self.faults and not self.on_trial(expert)

    def on_trial(self, expert: Expert) -> bool:
        return expert.name in self.trials

    def candidates(self, expert: Expert) -> list[str]:
        return ["worker-0", "worker-1"]

    async def classify(
        self, expert: Expert, _task: TaskSpec, request: ExpertMembers, call: Call
    ) -> tuple[str, ExpertAnswer]:
        self.asked.append(ExpertRequest(**request))
        await asyncio.sleep(self.delay_s)
        if expert.name in self.faults:
            raise self.faults[expert.name]
        call.worker_ms += 1
        label = "a" if expert.name in self.confidence else "neutral"
        answer = ExpertAnswer(
            result=label,
            confidence=self.confidence.get(expert.name, 0.6),
            probabilities={label: 0.6, "positive": 0.4},
            raw_response="said so",
            worker_id="w",
            model_key=expert.base_model_key,
            adapter_name=expert.adapter_name,
            processing_time_ms=1.0,
        )
        return "worker-1", answer

    def workers(self) -> list[WorkerInfo]:
        return []

    async def use(self, registry: Registry, mapping: WorkerMapping) -> None: ...

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class Scene:
    def __init__(self, gating: type[StubGating] = StubGating) -> None:
        self.experts = TestExperts()
        self.stats = Stats()
        self.gating = gating(registry())
        self.service = Classification(
            self.gating,
            self.experts,
            registry(),
            gate=FairGate(4, 100),
            limits=Limits(1000, 100),
            default_timeout_s=5,
            metrics=Metrics(),
            stats=self.stats,
        )

    async def ask(self, text: str = "x", description: str | None = None, **options: Any) -> ClassifyAnswer:
        request = ClassifyRequest.model_validate(
            {"text": text, "description": description, "options": options}
        )
        found, _ = await self.service.classify(request, Call("id", self.service.deadline(request)))
        answer = ClassifyAnswer(**found)
        assert to_json(found) == answer.model_dump_json().encode()
        return answer


async def test_an_answer_and_its_route() -> None:
    scene = Scene()
    answer = await scene.ask(return_probabilities=True, return_raw_response=True)
    assert (answer.task, answer.domain, answer.result) == (files.SENTIMENT, "finance", "neutral")
    assert (answer.worker_id, answer.model_key, answer.raw_response) == ("worker-1", files.MODEL, "said so")
    assert answer.probabilities == {"neutral": 0.6, "positive": 0.4}
    assert answer.domain_probabilities is not None
    assert [(s.step, s.choice) for s in answer.routing_path] == [("task", files.SENTIMENT), ("expert", "fin")]
    assert answer.timings_ms.worker == 1
    assert answer.timings_ms.total >= answer.timings_ms.worker - 1
    assert scene.stats.answer().by_task == {files.SENTIMENT: 1}


async def test_only_what_is_asked_for_is_told() -> None:
    answer = await Scene().ask()
    assert (answer.probabilities, answer.domain_probabilities, answer.raw_response) == (None, None, None)


async def test_abstaining_is_an_answer_or_an_error() -> None:
    scene = Scene()
    answer = await scene.ask(description=NOTHING_FITS)
    assert (answer.result, answer.task, answer.worker_id, answer.model_key) == (None, None, None, None)
    assert answer.abstained is not None
    assert answer.confidence == 0.1
    with pytest.raises(AbstainedError) as caught:
        await scene.ask(description=NOTHING_FITS, on_abstain="error")
    assert caught.value.nearest_tasks == (files.SENTIMENT,)
    assert not scene.experts.asked


async def test_the_callers_mistakes() -> None:
    scene = Scene()
    with pytest.raises(UnknownTaskError):
        await scene.ask(task="no/such")
    with pytest.raises(UnsupportedLanguageError):
        await scene.ask(task=files.GERMAN_ONLY, language="fr")
    assert (await scene.ask(task=files.GERMAN_ONLY, language="de")).language == "de"


async def test_a_registry_edit_does_not_spoil_a_request_that_waits_at_the_gate() -> None:
    scene = Scene()
    data = files.registry()
    data["tasks"] = {"new/task": data["tasks"][files.SENTIMENT]}
    gate = FairGate(1, 100)
    scene.service._gate = gate
    async with gate.place(""):
        waiting = asyncio.create_task(scene.ask())
        await asyncio.sleep(0)
        await scene.gating.use_registry(Registry.model_validate(data))
    answer = await waiting
    assert (answer.task, answer.result) == ("new/task", "neutral")


async def test_route_names_a_task_whose_language_is_not_served() -> None:
    scene = Scene()
    request = ClassifyRequest.model_validate(
        {"text": "x", "options": {"task": files.GERMAN_ONLY, "language": "fr"}}
    )
    answer = await scene.service.route(request, Call("id", time.monotonic() + 5))
    assert (answer.task, answer.expert, answer.candidates) == (files.GERMAN_ONLY, None, [])


async def test_route_calls_no_expert() -> None:
    scene = Scene()
    request = ClassifyRequest(text="x")
    answer = await scene.service.route(request, Call("id", time.monotonic() + 5))
    assert answer.candidates == ["worker-0", "worker-1"]
    assert answer.expert is not None
    assert answer.expert.adapter_name == "fin"
    assert not scene.experts.asked


async def test_an_unsure_expert_is_followed_by_the_next() -> None:
    scene = Scene(CascadeGating)
    answer = await scene.ask(task=CASCADE)
    assert [s.choice for s in answer.routing_path if s.step == "expert"] == ["small", "large"]
    assert answer.confidence == 0.9
    assert all(request.return_probabilities for request in scene.experts.asked)
    assert [request.adapter_name for request in scene.experts.asked] == ["small", "large"]


@pytest.mark.parametrize("fault", [WorkerAnswerError("rubbish"), AttemptTimeoutError("too slow")])
async def test_an_expert_that_cannot_be_asked_is_passed_over(fault: MoleError) -> None:
    scene = Scene(CascadeGating)
    scene.experts.faults["small"] = fault
    answer = await scene.ask(task=CASCADE)
    assert [s.choice for s in answer.routing_path if s.step == "expert"] == ["large"]
    scene.experts.faults["large"] = NoWorkerError("gone")
    with pytest.raises(NoWorkerError, match="gone"):
        await scene.ask(task=CASCADE)


async def test_the_last_experts_lateness_is_told() -> None:
    scene = Scene(CascadeGating)
    scene.experts.faults = {"small": NoWorkerError("gone"), "large": AttemptTimeoutError("too slow")}
    with pytest.raises(DeadlineError, match="too slow") as caught:
        await scene.ask(task=CASCADE)
    assert (caught.value.status, caught.value.slug) == (504, "deadline-exceeded")


async def test_the_whole_requests_time_is_told_at_once() -> None:
    scene = Scene(CascadeGating)
    scene.experts.faults["small"] = DeadlineError("all of it is up")
    with pytest.raises(DeadlineError, match="all of it"):
        await scene.ask(task=CASCADE)
    assert len(scene.experts.asked) == 1


async def test_an_answer_that_is_there_is_taken_where_the_next_expert_fails() -> None:
    scene = Scene(CascadeGating)
    scene.experts.faults["large"] = NoWorkerError("gone")
    answer = await scene.ask(task=CASCADE)
    assert (answer.result, answer.confidence) == ("a", 0.4)


async def test_the_requests_own_faults_are_not_retried() -> None:
    scene = Scene(CascadeGating)
    scene.experts.faults["small"] = MissingFieldError("query")
    with pytest.raises(MissingFieldError):
        await scene.ask(task=CASCADE)
    assert len(scene.experts.asked) == 1
    assert scene.stats.answer().failed == {"missing-field": 1}


async def test_nothing_reachable_is_no_worker() -> None:
    scene = Scene()
    scene.experts.faults["gone"] = NoWorkerError("x")
    with pytest.raises(NoWorkerError):
        await scene.ask()


async def test_an_expert_on_trial_is_waited_for_only_where_no_other_can_answer() -> None:
    scene = Scene(CascadeGating)
    scene.experts.trials = {"small"}
    answer = await scene.ask(task=CASCADE)
    assert [s.choice for s in answer.routing_path if s.step == "expert"] == ["large"]
    scene.experts.trials = {"small", "large"}
    scene.experts.confidence["small"] = 0.9
    answer = await scene.ask(task=CASCADE)
    assert [s.choice for s in answer.routing_path if s.step == "expert"] == ["small"]


async def test_a_fault_is_told_rather_than_another_experts_trial_awaited() -> None:
    scene = Scene(CascadeGating)
    scene.experts.trials, scene.experts.faults = {"small"}, {"large": WorkerAnswerError("rubbish")}
    with pytest.raises(WorkerAnswerError, match="rubbish"):
        await scene.ask(task=CASCADE)
    assert len(scene.experts.asked) == 1


async def test_the_whole_request_has_a_bound() -> None:
    scene = Scene()
    scene.experts.delay_s = 30
    with pytest.raises(DeadlineError):
        await scene.ask(timeout_seconds=0.02)


async def test_a_probe_answers_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    spec = scene.gating.registry.task(files.SENTIMENT)
    probing = spec.model_copy(update={"probe": {"path": "x"}})
    monkeypatch.setitem(scene.gating.registry.tasks, files.SENTIMENT, probing)
    answer = await scene.ask(return_probabilities=True)
    assert (answer.worker_id, answer.model_key, answer.result) == (None, "probe", "negative")
    assert [s.step for s in answer.routing_path] == ["task", "probe"]
    assert not scene.experts.asked


async def test_an_expert_that_is_asked_after_the_probe_is_heard_together_with_it() -> None:
    answer = await Scene(ScriptedGating).ask(return_probabilities=True)
    # neutral 0.05 * 0.6, positive 0.15 * 0.4, negative next to nothing: the expert all but rules it out
    assert answer.result == "positive"
    assert answer.confidence == pytest.approx(2 / 3, abs=1e-4)
    assert answer.probabilities is not None
    assert answer.probabilities["positive"] == answer.confidence
    assert (answer.worker_id, answer.model_key) == ("worker-1", files.MODEL)
    assert [s.step for s in answer.routing_path] == ["task", "probe", "expert"]
    assert answer.routing_path[-1].probability == answer.confidence


async def test_an_expert_that_is_asked_at_once_is_heard_with_the_probe_as_well() -> None:
    answer = await Scene(DecidedGating).ask()
    assert answer.result == "positive"
    assert [s.step for s in answer.routing_path] == ["task", "expert"]


async def test_what_is_withheld_is_the_joint_answer_not_the_surer_probe() -> None:
    answer = await Scene(WithholdingGating).ask()
    assert answer.abstained is not None
    assert "confidence 0.67" in answer.abstained.detail  # the probe alone was sure to 0.80


async def test_fixed_task_and_language_encode_nothing() -> None:
    scene = Scene()
    await scene.ask(task=files.SENTIMENT, language="en", via="expert")
    assert scene.stats.encoder_passes == 0
    await scene.ask()
    assert scene.stats.encoder_passes == 1

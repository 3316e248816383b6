"""A gating stand-in for tests: it takes the task from the options, or the first of the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from tests.stubs import decisions

decisions.install()

from moe_router.contracts import Abstention, RouteStep, Timings  # noqa: E402
from moe_router.errors import NoWorkerError  # noqa: E402
from moe_router.gating.pipeline import Action, Decision, Observation, ProbeAnswer  # noqa: E402
from moe_router.registry import Expert, Registry  # noqa: E402

NOTHING_FITS = "bake a cake"


class StubGating:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.closed = False

    @classmethod
    def load(cls, registry: Registry, _settings: object) -> StubGating:
        return cls(registry)

    async def decide(
        self,
        text: str,
        description: str | None,
        *,
        language: str | None,
        task: str | None,
        via: str,
        served: Callable[[str], bool],
    ) -> Decision:
        await asyncio.sleep(0)
        encoded = not (task and language and via == "expert")
        first = next(iter(self.registry.tasks))
        chosen = task or first
        abstained = None
        if description == NOTHING_FITS:
            abstained = Abstention(reason="out_of_scope", detail="Nothing fits.", nearest_tasks=[first])
        elif not any(served(e.base_model_key) for e in self.registry.all_experts(chosen)):
            abstained = Abstention(reason="expert_unavailable", detail="No worker.", nearest_tasks=[])
        domain = chosen.partition("/")[0]
        return Decision(
            language=language or "en",
            language_probability=0.9,
            domain=domain,
            domain_probabilities={domain: 1.0},
            task=None if abstained else chosen,
            task_probabilities={chosen: 1.0},
            confidence=0.1 if abstained else 0.9,
            abstained=abstained,
            steps=[RouteStep(step="task", choice=chosen, probability=0.9, ms=0.1)],
            timings=Timings(language=0.1, encode=1.0 if encoded else 0.0),
            encoder_passes=int(encoded),
        )

    def candidates(self, decision: Decision, *, reachable: Callable[[Expert], bool]) -> list[Expert]:
        offered = self.registry.experts_for(decision.task or "", decision.language)
        return [expert for expert in offered if reachable(expert)]

    def next_action(
        self,
        decision: Decision,
        observations: Sequence[Observation],
        *,
        reachable: Callable[[Expert], bool],
    ) -> Action:
        if observations:
            return Action(kind="accept", expert=None)
        found = self.candidates(decision, reachable=reachable)
        if not found:
            raise NoWorkerError(f"No worker for {decision.task} can be reached now.")
        return Action(kind="expert", expert=found[0])

    async def probe(self, decision: Decision) -> ProbeAnswer:
        label = self.registry.task(decision.task or "").label_set[0]
        return ProbeAnswer(label=label, confidence=0.8, probabilities={label: 1.0})

    async def use_registry(self, registry: Registry) -> None:
        self.registry = registry

    async def aclose(self) -> None:
        self.closed = True

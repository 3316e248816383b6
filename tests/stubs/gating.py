"""A gating stand-in for tests: it takes the task from the options, or the first of the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from moe_router.contracts import Abstention, Timings
from moe_router.errors import NoWorkerError
from moe_router.gating.batching import EncoderCounts
from moe_router.gating.decision import Decision
from moe_router.gating.heads import Distribution
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import Action, Observation, State, Via
from moe_router.gating.versions import RouterWeights
from moe_router.gating.weights import Weights
from moe_router.registry import Expert, Registry
from moe_router.tally import SizeTally

NOTHING_FITS = "bake a cake"


def _state(chosen: str, language: str) -> State:
    certain = np.ones(1, np.float32)
    tasks = Distribution((chosen,), certain, none=0.0, open=0.0)
    domains = Distribution((chosen.partition("/")[0],), certain, none=0.0, open=0.0)
    return State(np.zeros(4, np.float32), tasks, domains, language, 0.9)


class StubGating:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.closed = False
        self.shipped = RouterWeights(Weights({}, {}), Weights({}, {}))
        self.shipped_digest = "stub"
        self.left_out: frozenset[str] = frozenset()
        self.version: int | None = None

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
        via: Via,
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
            steps=[{"step": "task", "choice": chosen, "probability": 0.9, "ms": 0.1}],
            timings=Timings(language=0.1, encode=1.0 if encoded else 0.0),
            encoder_passes=int(encoded),
            encoder="stub" if encoded else None,
            description_vector=np.full(4, 0.5, np.float32) if encoded and description else None,
            text_vector=np.full(4, 0.25, np.float32) if encoded else None,
            via=via,
            router=cast(Any, SimpleNamespace(registry=self.registry)),
            router_version=self.version,
            state=_state(chosen, language or "en"),
            probe=self._probe(chosen) if via != "expert" else None,
        )

    def _probe(self, task_key: str) -> ProbeAnswer | None:
        task = self.registry.task(task_key)
        if task.probe is None:
            return None
        label = task.label_set[0]
        return ProbeAnswer(
            label, confidence=0.8, margin=0.6, probabilities=dict.fromkeys(task.label_set, 0.5)
        )

    def candidates(self, decision: Decision, *, reachable: Callable[[Expert], bool]) -> list[Expert]:
        offered = self.registry.experts_for(decision.task or "", decision.language)
        return sorted(offered, key=lambda expert: not reachable(expert))

    def next_action(
        self,
        decision: Decision,
        observations: Sequence[Observation],
        *,
        reachable: Callable[[Expert], bool],
    ) -> Action:
        if observations:
            return Action("accept", observations[-1].action.expert, len(observations) - 1)
        if decision.probe is not None:
            return Action("probe")
        found = [e for e in self.candidates(decision, reachable=reachable) if reachable(e)]
        if not found:
            raise NoWorkerError(f"No worker for {decision.task} can be reached now.")
        return Action("expert", found[0])

    async def use_router(self, weights: RouterWeights, version: int | None) -> None:
        self.version = version

    def counts(self) -> EncoderCounts:
        return EncoderCounts(SizeTally(), 0, 0)

    async def use_registry(self, registry: Registry) -> None:
        self.registry = registry

    async def aclose(self) -> None:
        self.closed = True

"""What gating found out about one request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from moe_router.contracts import Abstention, Timings
from moe_router.gating.heads import NONE, Distribution
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import State, TaskRouter, Via
from moe_router.gating.weights import Floats
from moe_router.members import StepMembers


class Stopwatch:
    """Milliseconds between laps, summed by name."""

    def __init__(self) -> None:
        """Starts."""
        self.began = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Ends a lap."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What the heads think of a request, as answers tell it."""

    domain_probabilities: dict[str, float]
    task_probabilities: dict[str, float]
    """over the tasks alone, whatever the chance that the request fits none"""
    confidence: float
    """of the chosen task"""

    @classmethod
    def of(cls, tasks: Distribution, domains: Distribution, chosen: str) -> Beliefs:
        """Sums up two distributions."""
        by_task, by_domain = tasks.as_dict(), domains.as_dict() | {NONE: domains.none}
        in_scope, even = sum(by_task.values()), 1 / len(by_task)
        share = {name: p / in_scope if in_scope > 0 else even for name, p in by_task.items()}
        return cls(
            domain_probabilities={name: _clip(p) for name, p in by_domain.items()},
            task_probabilities={name: _clip(p) for name, p in share.items()},
            confidence=_clip(by_task.get(chosen, 0.0)),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """A gating decision; `router` is the one that made it, also after a reload of the registry."""

    language: str
    language_probability: float
    domain: str | None
    domain_probabilities: dict[str, float]
    task: str | None
    task_probabilities: dict[str, float]
    confidence: float
    """the calibrated probability that the best task is what is asked, also where gating abstains"""
    abstained: Abstention | None
    steps: list[StepMembers]
    timings: Timings
    encoder_passes: int
    """1, or 0 where nothing had to be encoded"""
    via: Via
    router: TaskRouter = field(repr=False)
    state: State = field(repr=False)
    probe: ProbeAnswer | None = field(repr=False)
    """the probe's answer, where the task has one and the caller allows it"""
    encoder: str | None = None
    """identity of the encoder that made the vectors"""
    description_vector: Floats | None = field(default=None, repr=False)
    """(hidden,); None where nothing was encoded"""
    text_vector: Floats | None = field(default=None, repr=False)
    """(hidden,); None where the description decided alone"""
    router_version: int | None = None
    """number of the router's weights; None: those that the package ships"""

    @classmethod
    def of(
        cls,
        state: State,
        chosen: str,
        refusal: Abstention | None,
        watch: Stopwatch,
        *,
        router: TaskRouter,
        beliefs: Beliefs | None = None,
        **known: Any,
    ) -> Decision:
        """Sums up.

        Args:
            state: what was known.
            chosen: the likeliest task.
            refusal: why gating abstains all the same.
            watch: with the laps language, task and, where they were, encode and domain.
            router: the one that chose.
            beliefs: those of the state and the task, where they were summed up before.
            known: the further fields, as they are.
        """
        found = beliefs or Beliefs.of(state.tasks, state.domains, chosen)
        domain: str | None = chosen.split("/")[0]
        if refusal is not None and refusal.reason != "expert_unavailable":
            likeliest = state.domains.names[int(state.domains.probabilities.argmax())]
            domain = None if state.domains.none > 0.5 else likeliest
        return cls(
            language=state.language,
            language_probability=state.language_probability,
            domain=domain,
            domain_probabilities=found.domain_probabilities,
            task=chosen if refusal is None else None,
            task_probabilities=found.task_probabilities,
            confidence=found.confidence,
            abstained=refusal,
            steps=_steps(state, domain, chosen, refusal is None, watch.laps),
            timings=Timings(**watch.laps, total=(time.perf_counter() - watch.began) * 1e3),
            router=router,
            state=state,
            router_version=router.version,
            **known,
        )

    @property
    def at_no_cost(self) -> bool:
        """Whether it was taken by what the caller has said alone, and is none to abstain."""
        return self.encoder_passes == 0 and self.abstained is None

    def again(self) -> Decision:
        """The same for a request that says the same: nothing was spent on it."""
        steps: list[StepMembers] = [{**step, "ms": 0.0} for step in self.steps]
        return replace(self, steps=steps, timings=Timings())


def _steps(
    state: State, domain: str | None, chosen: str, kept: bool, laps: dict[str, float]
) -> list[StepMembers]:
    domain_p = state.domains.none if domain is None else state.domains.of(domain)
    return [
        {
            "step": "language", "choice": state.language, "probability": state.language_probability,
            "ms": laps["language"],
        },
        {
            "step": "domain", "choice": domain or NONE, "probability": _clip(domain_p),
            "ms": laps.get("domain", 0.0),
        },
        {
            "step": "task", "choice": chosen if kept else None, "probability": _clip(state.tasks.of(chosen)),
            "ms": laps.get("encode", 0.0) + laps["task"],
        },
    ]  # fmt: skip


def _clip(p: float) -> float:
    return min(1.0, max(0.0, p))

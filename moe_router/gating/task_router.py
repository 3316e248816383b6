"""The task router: which task is asked for, and which of its experts to ask next.

A decision has several steps. First the router picks the action of the highest value over every
expert of every task; that fixes the task. The answer's confidence is then observed, and the router
accepts the answer or asks another of the task's experts, whichever the Q-network values more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moe_router.contracts import UNDETERMINED
from moe_router.errors import NoWorkerError
from moe_router.gating.heads import Distribution, MixtureHead
from moe_router.gating.qnetwork import ActionFeatures, QNetwork
from moe_router.gating.weights import Floats, Weights
from moe_router.registry import Expert, Registry

WEIGHTS = "task"
"""Name of the task head's weight files."""

NEGLIGIBLE = 0.05
"""A task this much less likely than the likeliest is not valued at all."""

Via = Literal["auto", "expert", "probe"]


@dataclass(frozen=True, slots=True)
class Action:
    """What to do next: ask the probe or an expert, or accept the last answer."""

    kind: Literal["probe", "expert", "accept"]
    expert: Expert | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """An action taken and what came of it."""

    action: Action
    label: str | None
    confidence: float
    margin: float = 0.0
    """how far the best label's probability is above the second's"""


@dataclass(frozen=True, slots=True)
class State:
    """What the router knows before any expert was asked."""

    encodings: Floats
    """the Q-network's first layer for this request"""
    tasks: Distribution
    domains: Distribution
    language: str
    language_probability: float


class TaskRouter:
    """Chooses tasks and experts. Pure and thread-safe."""

    def __init__(
        self, registry: Registry, weights: Weights, qnetwork: QNetwork, prototypes: Mapping[str, Floats]
    ) -> None:
        """Takes the registry, the task head's weights, the Q-network, and each task's prototypes."""
        self.registry = registry
        self.head = MixtureHead(weights, tuple(registry.tasks), prototypes)
        self.qnetwork = qnetwork
        # A task's experts whatever the language: what a value of the task is taken over.
        self._offered = {key: registry.all_experts(key) for key in registry.tasks}

    def choose_task(self, state: State) -> str:
        """The task of the most valuable first action; what can be reached or is allowed plays no part."""
        plausible = NEGLIGIBLE * state.tasks.probabilities.max()
        offered = [
            (key, action)
            for key, p in zip(state.tasks.names, state.tasks.probabilities, strict=True)
            if p >= plausible
            for action in self._first_actions(key, state.language)
        ]
        # One pass over the actions of all tasks.
        rows = [features(state, key, action, ()).vector() for key, action in offered]
        values = self.qnetwork.values(state.encodings, np.stack(rows))
        return offered[int(values.argmax())][0]

    def next_action(
        self,
        state: State,
        task_key: str,
        observations: Sequence[Observation],
        *,
        via: Via = "auto",
        reachable: Callable[[Expert], bool],
    ) -> Action:
        """The most valuable action on a task, given what has been observed.

        Raises:
            NoWorkerError: nothing has been answered and no expert can be reached.
        """
        asked = {o.action.expert for o in observations if o.action.kind == "expert"}
        actions = [
            Action("expert", e)
            for e in self.experts(task_key, state.language)
            if e not in asked and via != "probe" and reachable(e)
        ]
        if observations:
            actions.append(Action("accept"))
        elif self.registry.task(task_key).probe is not None and via != "expert":
            actions.append(Action("probe"))
        if not actions:
            raise NoWorkerError(f"No worker that serves {task_key} can be reached now.")
        return actions[int(self.values(state, task_key, actions, observations).argmax())]

    def candidates(
        self, state: State, task_key: str, *, via: Via = "auto", reachable: Callable[[Expert], bool]
    ) -> list[Expert]:
        """The task's experts for the language, most valuable first, unreachable ones last."""
        actions = (
            [Action("expert", e) for e in self.experts(task_key, state.language)] if via != "probe" else []
        )
        if not actions:
            return []
        values = self.values(state, task_key, actions, ())
        ranked = sorted(zip(values, actions, strict=True), key=lambda pair: -pair[0])
        experts = [action.expert for _, action in ranked if action.expert is not None]
        return sorted(experts, key=lambda expert: not reachable(expert))

    def experts(self, task_key: str, language: str) -> tuple[Expert, ...]:
        """The task's experts for a language; where it is unknown, those that state none."""
        return self.registry.experts_for(task_key, language)

    def values(
        self, state: State, task_key: str, actions: Sequence[Action], observations: Sequence[Observation]
    ) -> Floats:
        """Q of each action on a task: (len(actions),) float32."""
        rows = [features(state, task_key, action, observations).vector() for action in actions]
        return self.qnetwork.values(state.encodings, np.stack(rows))

    def _first_actions(self, task_key: str, language: str) -> list[Action]:
        experts = self.experts(task_key, language) or self._offered[task_key]
        probe = [Action("probe")] if self.registry.task(task_key).probe is not None else []
        return [Action("expert", e) for e in experts] + probe


def features(
    state: State, task_key: str, action: Action, observations: Sequence[Observation]
) -> ActionFeatures:
    """Describes a state and an action to the Q-network."""
    probes = [o for o in observations if o.action.kind == "probe"]
    experts = [o for o in observations if o.action.kind == "expert"]
    labels = [o.label for o in observations]
    last = observations[-1] if observations else None
    return ActionFeatures(
        task_probability=state.tasks.of(task_key),
        none_probability=state.tasks.none,
        domain_probability=state.domains.of(task_key.split("/")[0]),
        language_probability=state.language_probability,
        undetermined=float(state.language == UNDETERMINED),
        accept=float(action.kind == "accept"),
        probe=float(action.kind == "probe"),
        expert=float(action.kind == "expert"),
        cost=min(action.expert.cost, 10.0) if action.expert is not None else 0.0,
        probed=float(bool(probes)),
        probe_confidence=probes[-1].confidence if probes else 0.0,
        probe_margin=probes[-1].margin if probes else 0.0,
        asked=min(len(experts), 4) / 4,
        last_confidence=last.confidence if last else 0.0,
        best_confidence=max((o.confidence for o in observations), default=0.0),
        agreement=float(len(labels) > 1 and labels[-1] == labels[-2]),
        repeated=float(last is not None and last.action.kind == "expert"),
    )

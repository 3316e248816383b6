"""The task router: which task is asked for, and which of its experts to ask next.

A decision has several steps. First the router picks the task whose expert is worth most to ask; how
good and how dear a task's experts are must not decide what the caller has asked for, so here each
task is valued as if its expert were any expert. Then it picks among the task's own experts and its
probe by what is known of them, observes the answer, and accepts one of the answers so far, asks
another expert, or gives up, whichever is worth most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np

from moe_router.contracts import UNDETERMINED
from moe_router.errors import NoWorkerError
from moe_router.gating.heads import Distribution, MixtureHead
from moe_router.gating.qnetwork import MAX_PRICE, PRIOR_SKILL, ActionFeatures, QNetwork
from moe_router.gating.weights import Floats, Weights
from moe_router.registry import Expert, Registry

WEIGHTS = "task"
"""Name of the task head's weight files."""

NEGLIGIBLE = 0.05
"""A task this much less likely than the likeliest is not valued at all."""

Via = Literal["auto", "expert", "probe"]
PROBE: Final = "probe"
Skills = Mapping[str, Mapping[str, float]]
"""Share of right answers by task and by name of the expert, or `probe`; where unknown, it is absent."""


class Action(NamedTuple):
    """What to do next: ask the probe or an expert, accept an answer, or abstain."""

    kind: Literal["probe", "expert", "accept", "abstain"]
    expert: Expert | None = None
    answer: int | None = None
    """place of the accepted answer among the observations"""
    propensity: float = 1.0
    """the probability with which the router takes this action in this state"""


class Observation(NamedTuple):
    """An action taken and what came of it."""

    action: Action
    label: str | None
    confidence: float
    margin: float = 0.0
    """how far the best label's probability is above the second's"""
    pooled: bool = False
    """whether the expert was heard together with the probe, whose own answer then says nothing more"""

    @property
    def name(self) -> str:
        """Who answered: the expert's name, or `probe`."""
        return self.action.expert.name if self.action.expert is not None else PROBE


@dataclass(frozen=True, slots=True)
class Policy:
    """How the router weighs and explores; an operator's settings."""

    cost_weight: float = 0.05
    """what a call of an expert of cost 1 costs, in units of a right answer"""
    abstain_value: float = 0.0
    """what abstaining is worth, likewise: an answer less likely to be right is withheld"""
    exploration: float = 0.0
    """share of the steps that are taken at random, to learn from"""


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
    """Chooses tasks and experts. Pure but for exploring; thread-safe without it."""

    def __init__(
        self,
        registry: Registry,
        weights: Weights,
        qnetwork: QNetwork,
        prototypes: Mapping[str, Floats],
        *,
        skills: Skills = MappingProxyType({}),
        policy: Policy = Policy(),
        rng: np.random.Generator | None = None,
        version: int | None = None,
    ) -> None:
        """Takes the registry, the task head's weights, the Q-network, and each task's prototypes."""
        self.registry = registry
        self.head = MixtureHead(weights, tuple(registry.tasks), prototypes)
        self.qnetwork = qnetwork
        self.policy = policy
        self.version = version
        """number of the weights; None: those that the package ships"""
        self.skills = skills
        self._rng = rng or np.random.default_rng()

    def choose_task(self, state: State) -> str:
        """The task that is most valuable to ask; what can be reached or is allowed plays no part."""
        plausible = NEGLIGIBLE * state.tasks.probabilities.max()
        names = [
            name
            for name, p in zip(state.tasks.names, state.tasks.probabilities, strict=True)
            if p >= plausible
        ]
        rows = [replace(base_features(state, name), expert=1.0, skill=PRIOR_SKILL).vector() for name in names]
        return names[int(self.qnetwork.values(state.encodings, np.stack(rows)).argmax())]

    def next_action(
        self,
        state: State,
        task_key: str,
        observations: Sequence[Observation],
        *,
        via: Via = "auto",
        reachable: Callable[[Expert], bool],
    ) -> Action:
        """The most valuable action on a task, given what has been observed; now and then another one.

        Raises:
            NoWorkerError: nothing has been answered and no expert can be reached.
        """
        if len(observations) == 1 and self.policy.abstain_value <= 0:
            asked = observations[0].action.expert
            if asked is not None and self.experts(task_key, state.language) == (asked,):
                return Action("accept", asked, 0)  # most tasks have one expert: there is nobody else to ask
        actions = self._actions(state, task_key, observations, via, reachable)
        if not actions:
            raise NoWorkerError(f"No worker that serves {task_key} can be reached now.")
        if len(actions) == 1 and (not observations or self.policy.abstain_value <= 0):
            return actions[0]  # there is nothing to weigh
        values = self.values(state, task_key, actions, observations)
        return self._choose(actions, values, observed=bool(observations))

    def probability(
        self,
        state: State,
        task_key: str,
        observations: Sequence[Observation],
        action: Action,
        *,
        via: Via = "auto",
        reachable: Callable[[Expert], bool],
    ) -> float:
        """The probability with which `next_action` takes an action; 0 for one that is not offered."""
        actions = self._actions(state, task_key, observations, via, reachable)
        wanted = action._replace(propensity=1.0)
        if wanted not in actions:
            return 0.0
        values = self.values(state, task_key, actions, observations)
        if observations and values.max() < self.policy.abstain_value > 0:
            return 0.0
        return self._propensity(actions.index(wanted) == int(values.argmax()), len(actions))

    def _actions(
        self,
        state: State,
        task_key: str,
        observations: Sequence[Observation],
        via: Via,
        reachable: Callable[[Expert], bool],
    ) -> list[Action]:
        experts = self.experts(task_key, state.language) if via != "probe" else ()
        if not observations:
            actions = [Action("expert", e) for e in experts if reachable(e)]
            # After an answer the probe is not offered: it was there to be asked first.
            if via != "expert" and self.registry.task(task_key).probe is not None:
                actions.append(Action(PROBE))
            return actions
        # A list: an expert is told by being the same one, which is quicker than to hash all that it is.
        asked = [o.action.expert for o in observations if o.action.kind == "expert"]
        left = standing(observations)
        return [
            *[Action("expert", e) for e in experts if e not in asked and reachable(e)],
            *[Action("accept", o.action.expert, observations.index(o)) for o in left],
        ]

    def _propensity(self, best: bool, offered: int) -> float:
        epsilon = self.policy.exploration if offered > 1 else 0.0
        return epsilon / offered + (1 - epsilon) * best

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
        skills = self.skills.get(task_key, {})
        rows = [
            features(state, task_key, action, observations, skills=skills, policy=self.policy).vector()
            for action in actions
        ]
        return self.qnetwork.values(state.encodings, np.stack(rows))

    def _choose(self, actions: Sequence[Action], values: Floats, *, observed: bool) -> Action:
        best = int(values.argmax())
        # An estimate may fall below 0: nothing is withheld unless an operator wants it.
        if observed and values[best] < self.policy.abstain_value > 0:
            return Action("abstain")
        epsilon = self.policy.exploration
        if epsilon <= 0.0 or len(actions) == 1:
            return actions[best]
        explored = self._rng.random() < epsilon
        chosen = int(self._rng.integers(len(actions))) if explored else best
        return actions[chosen]._replace(propensity=self._propensity(chosen == best, len(actions)))


def base_features(state: State, task_key: str) -> ActionFeatures:
    """What every action on a task has in common, before anything was asked."""
    return ActionFeatures(
        task_probability=state.tasks.of(task_key),
        none_probability=state.tasks.none,
        domain_probability=state.domains.of(task_key.split("/")[0]),
        language_probability=state.language_probability,
        undetermined=float(state.language == UNDETERMINED),
    )


def features(
    state: State,
    task_key: str,
    action: Action,
    observations: Sequence[Observation],
    *,
    skills: Mapping[str, float],
    policy: Policy,
) -> ActionFeatures:
    """Describes a state and an action to the Q-network.

    Args:
        state: of the request.
        task_key: whose experts are asked.
        action: asks or accepts.
        observations: the answers so far.
        skills: of the task's experts and its probe, by name.
        policy: says what a call costs.
    """
    left = standing(observations)
    best = max(left, key=lambda o: o.confidence, default=None)
    accepted = observations[action.answer] if action.answer is not None else None
    others = [o.label == accepted.label for o in left if o is not accepted] if accepted else []
    expert = action.expert
    return replace(
        base_features(state, task_key),
        accept=float(accepted is not None),
        probe=float(expert is None),
        expert=float(expert is not None),
        price=min(policy.cost_weight * expert.cost, MAX_PRICE) if expert and accepted is None else 0.0,
        skill=skills.get(expert.name if expert else PROBE, PRIOR_SKILL),
        confidence=accepted.confidence if accepted else 0.0,
        margin=accepted.margin if accepted else 0.0,
        agreement=2 * sum(others) / len(others) - 1 if others else 0.0,
        asked=min(len(left), 4) / 4,
        best_confidence=best.confidence if best else 0.0,
        best_margin=best.margin if best else 0.0,
        best_skill=skills.get(best.name, PRIOR_SKILL) if best else 0.0,
        disagreement=float(len({o.label for o in left}) > 1),
    )


def standing(observations: Sequence[Observation]) -> Sequence[Observation]:
    """The answers that count: the probe's does not where it is part of another."""
    if len(observations) == 1 or not any(o.pooled for o in observations):
        return observations
    return [o for o in observations if o.action.kind != PROBE]

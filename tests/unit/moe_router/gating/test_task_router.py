from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import NoWorkerError
from moe_router.gating.heads import Distribution
from moe_router.gating.qnetwork import FEATURES, PRIOR_SKILL, ActionFeatures, QNetwork
from moe_router.gating.task_router import (
    Action,
    Observation,
    Policy,
    State,
    TaskRouter,
    Via,
    features,
)
from moe_router.registry import Expert, Registry
from tests.unit.moe_router.gating.made import CASCADE, CLASSES, head_weights, q_network, registry

EXPERTS = [
    {"name": "small", "base_model_key": "m", "cost": 1},
    {"name": "large", "base_model_key": "n", "cost": 4},
    {"name": "german", "base_model_key": "n", "cost": 2, "languages": ["de"]},
]
PROBE = {"path": "probes/x"}
POLICY = Policy(cost_weight=0.1)


def router(own: Registry | None = None, network: QNetwork | None = None, **given: Any) -> TaskRouter:
    """A router for which a call of cost 1 costs a tenth of a right answer."""
    made = network or q_network({"task_probability": 1.0, "price": -1.0})
    return TaskRouter(own or registry(), head_weights(), made, {}, policy=POLICY, **given)


def state_of(own: TaskRouter, *probabilities: float, language: str = "en", none: float = 0.0) -> State:
    names = tuple(own.registry.tasks)
    given = probabilities or (1.0,) + (0.0,) * (len(names) - 1)
    tasks = Distribution(names, np.array(given, np.float32), none, 0.0)
    domains = Distribution(own.registry.domains, np.ones(len(own.registry.domains), np.float32), 0.0, 0.0)
    return State(own.qnetwork.state(None, None), tasks, domains, language, 0.9)


def anything(_expert: Expert) -> bool:
    return True


def nothing(_expert: Expert) -> bool:
    return False


def several(**task: Any) -> TaskRouter:
    return router(registry({"a/x": {"experts": EXPERTS, **task}}))


class TestChoosingTheTask:
    @pytest.mark.parametrize("best", range(3))
    def test_the_most_valuable_first_action_names_it(self, best: int) -> None:
        own = router()
        probabilities = [0.2, 0.2, 0.2]
        probabilities[best] = 0.6
        assert own.choose_task(state_of(own, *probabilities)) == CLASSES[best]

    def test_how_good_or_dear_its_experts_are_plays_no_part(self) -> None:
        dear = [{"name": "dear", "base_model_key": "m", "cost": 9}]
        network = q_network({"task_probability": 1.0, "price": -1.0, "skill": 1.0, "probe": 1.0})
        own = router(
            registry({"a/x": {"experts": dear}, "a/y": {"probe": PROBE}}), network,
            skills={"a/x": {"dear": 0.1}, "a/y": {"m": 0.9, "probe": 0.9}},
        )  # fmt: skip
        assert own.choose_task(state_of(own, 0.51, 0.49)) == "a/x"
        assert own.choose_task(state_of(own, 0.49, 0.51)) == "a/y"

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.sets(st.sampled_from(CLASSES)))
    def test_reachability_never_changes_it(self, probabilities: list[float], down: set[str]) -> None:
        own = router()
        state = state_of(own, *probabilities)
        chosen = own.choose_task(state)

        def reachable(expert: Expert) -> bool:
            return expert.task_key not in down

        if chosen in down:
            with pytest.raises(NoWorkerError, match=chosen):
                own.next_action(state, chosen, (), reachable=reachable)
        else:
            action = own.next_action(state, chosen, (), reachable=reachable)
            assert action.expert is not None
            assert action.expert.task_key == chosen
        assert own.choose_task(state) == chosen

    def test_a_language_that_no_expert_serves_does_not_hide_the_task(self) -> None:
        own = router(registry({"a/x": {"supported_languages": ["de"]}, "a/y": {}}))
        assert own.choose_task(state_of(own, 0.9, 0.1, language="fr")) == "a/x"
        assert own.choose_task(state_of(own, 0.9, 0.1, language="und")) == "a/x"


class TestTheFirstAction:
    def test_unreachable_experts_are_masked(self) -> None:
        own = several()
        state = state_of(own, language="de")
        preferred = own.next_action(state, "a/x", (), reachable=anything)
        assert preferred.expert is not None
        assert preferred.expert.name == "small"
        second = own.next_action(state, "a/x", (), reachable=lambda e: e.name != "small")
        assert second.expert is not None
        assert second.expert.name == "german"
        with pytest.raises(NoWorkerError, match="No worker that serves a/x"):
            own.next_action(state, "a/x", (), reachable=nothing)

    def test_experts_of_other_languages_are_not_asked(self) -> None:
        own = several()
        action = own.next_action(state_of(own), "a/x", (), reachable=lambda e: e.name != "small")
        assert action.expert is not None
        assert action.expert.name == "large"
        with pytest.raises(NoWorkerError):
            own.next_action(state_of(own), "a/x", (), reachable=lambda e: e.name == "german")

    @pytest.mark.parametrize(("via", "kind"), [("auto", "probe"), ("probe", "probe"), ("expert", "expert")])
    def test_the_caller_may_bind_it(self, via: Via, kind: str) -> None:
        own = several(probe=PROBE)
        action = own.next_action(state_of(own), "a/x", (), via=via, reachable=anything)
        assert action.kind == kind  # a probe costs nothing, so it goes first where it may

    def test_a_probe_needs_no_worker(self) -> None:
        own = several(probe=PROBE)
        assert own.next_action(state_of(own), "a/x", (), reachable=nothing) == Action("probe")
        with pytest.raises(NoWorkerError):
            own.next_action(state_of(own), "a/x", (), via="expert", reachable=nothing)

    def test_who_insists_on_a_probe_that_is_not_there_gets_no_expert(self) -> None:
        own = several()
        with pytest.raises(NoWorkerError):
            own.next_action(state_of(own), "a/x", (), via="probe", reachable=anything)


class TestGoingOn:
    """With Q(accept) = the answer's confidence and Q(ask) = 0.6 less a tenth of the cost."""

    def made(self, policy: Policy = POLICY, **task: Any) -> TaskRouter:
        network = q_network({"expert": 0.6, "price": -1.0}, CASCADE | {("accept", "expert"): -0.6})
        own = registry({"a/x": {"experts": EXPERTS} | task})
        return TaskRouter(own, head_weights(), network, {}, policy=policy, rng=np.random.default_rng(0))

    def after(self, own: TaskRouter, *seen: Observation, via: Via = "auto", reachable=anything) -> Action:
        return own.next_action(state_of(own), "a/x", seen, via=via, reachable=reachable)

    def expert(self, own: TaskRouter, name: str) -> Action:
        return Action("expert", next(e for e in own.registry.all_experts("a/x") if e.name == name))

    def accepts(self, action: Action, answer: int, of: Action) -> bool:
        return action == Action("accept", of.expert, answer)

    def test_a_sure_answer_is_accepted(self) -> None:
        own = self.made()
        small = self.expert(own, "small")
        assert self.accepts(self.after(own, Observation(small, "yes", 0.9)), 0, small)

    def test_an_unsure_one_goes_on_to_who_has_not_been_asked_and_the_best_answer_is_accepted(self) -> None:
        own = self.made()
        small, large = self.expert(own, "small"), self.expert(own, "large")
        first = Observation(small, "yes", 0.15)
        assert self.after(own, first) == large
        assert self.accepts(self.after(own, first, Observation(large, "no", 0.1)), 0, small)
        assert self.accepts(self.after(own, first, Observation(large, "no", 0.3)), 1, large)

    def test_where_nobody_else_can_be_reached_the_answer_is_accepted(self) -> None:
        own = self.made()
        small = self.expert(own, "small")
        assert self.accepts(self.after(own, Observation(small, "yes", 0.01), reachable=nothing), 0, small)

    def test_an_unsure_probe_is_followed_by_an_expert_unless_the_caller_wants_none(self) -> None:
        own = self.made(probe=PROBE)
        probe = Action("probe")
        seen = Observation(probe, "yes", 0.3, 0.1)
        assert self.after(own, seen) == self.expert(own, "small")
        assert self.accepts(self.after(own, seen, via="probe"), 0, probe)
        assert self.accepts(self.after(own, seen, reachable=nothing), 0, probe)

    def test_a_probe_that_is_part_of_an_experts_answer_is_not_accepted_beside_it(self) -> None:
        own = self.made(probe=PROBE)
        probe, small = Action("probe"), self.expert(own, "small")
        sure = Observation(probe, "yes", 0.9)
        apart, together = Observation(small, "no", 0.7), Observation(small, "no", 0.7, pooled=True)
        assert self.accepts(self.after(own, sure, apart), 0, probe)
        assert self.accepts(self.after(own, sure, together), 1, small)
        unsure = Observation(small, "no", 0.1, pooled=True)
        assert self.after(own, sure, unsure) == self.expert(own, "large")

    def test_an_answer_worth_less_than_abstaining_is_withheld(self) -> None:
        own = self.made(Policy(cost_weight=0.1, abstain_value=0.5))
        small = self.expert(own, "small")
        assert self.after(own, Observation(small, "yes", 0.4), reachable=nothing) == Action("abstain")
        assert self.after(own, Observation(small, "yes", 0.6), reachable=nothing).kind == "accept"

    def test_the_answer_of_an_only_expert_is_accepted_unless_it_is_worth_too_little(self) -> None:
        own, strict = (self.made(policy, experts=EXPERTS[:1]) for policy in (POLICY, Policy(0.1, 0.5)))
        only = self.expert(own, "small")
        assert self.accepts(self.after(own, Observation(only, "yes", 0.1)), 0, only)
        assert self.after(strict, Observation(only, "yes", 0.4)) == Action("abstain")
        assert self.accepts(self.after(strict, Observation(only, "yes", 0.6)), 0, only)

    def test_before_anything_was_asked_it_never_abstains(self) -> None:
        own = self.made(Policy(cost_weight=0.1, abstain_value=0.99))
        assert own.next_action(state_of(own), "a/x", (), reachable=anything).kind == "expert"


class TestExploring:
    def many(self, epsilon: float, count: int = 2000) -> list[Action]:
        own = TaskRouter(
            registry({"a/x": {"experts": EXPERTS}}), head_weights(),
            q_network({"price": -1.0}), {}, policy=Policy(0.1, 0.0, epsilon), rng=np.random.default_rng(1),
        )  # fmt: skip
        state = state_of(own, language="de")
        return [own.next_action(state, "a/x", (), reachable=anything) for _ in range(count)]

    def test_without_it_the_best_action_is_taken_for_sure(self) -> None:
        assert {(a.expert.name, a.propensity) for a in self.many(0.0, 20) if a.expert} == {("small", 1.0)}

    def test_the_propensities_are_those_of_the_draws(self) -> None:
        actions = self.many(0.3)
        shares = Counter(a.expert.name for a in actions if a.expert)
        told = {a.expert.name: a.propensity for a in actions if a.expert}
        assert told == pytest.approx({"small": 0.8, "large": 0.1, "german": 0.1})
        for name, propensity in told.items():
            assert shares[name] / len(actions) == pytest.approx(propensity, abs=0.03)


class TestCandidates:
    def test_the_most_valuable_first_the_unreachable_last(self) -> None:
        own = several()
        state = state_of(own, language="de")

        def names(reachable) -> list[str]:
            return [e.name for e in own.candidates(state, "a/x", reachable=reachable)]

        assert names(anything) == ["small", "german", "large"]
        assert names(lambda e: e.name == "large") == ["large", "small", "german"]
        assert names(nothing) == ["small", "german", "large"]

    def test_there_are_none_where_only_a_probe_is_wanted(self) -> None:
        own = several(probe=PROBE)
        assert own.candidates(state_of(own), "a/x", via="probe", reachable=anything) == []

    def test_there_are_none_for_a_language_that_nobody_serves(self) -> None:
        own = router(registry({"a/x": {"supported_languages": ["de"]}}))
        assert own.candidates(state_of(own, language="fr"), "a/x", reachable=anything) == []


def phi(own: TaskRouter, state: State, action: Action, *seen: Observation, **skills: float) -> ActionFeatures:
    return features(state, "a/x", action, seen, skills=skills, policy=POLICY)


class TestFeatures:
    def test_before_anything_was_asked(self) -> None:
        own = several()
        state = state_of(own, 0.75, none=0.25, language="und")
        expert = own.registry.all_experts("a/x")[1]
        assert phi(own, state, Action("expert", expert), large=0.8) == ActionFeatures(
            task_probability=0.75, none_probability=0.25, domain_probability=1.0, language_probability=0.9,
            undetermined=1.0, expert=1.0, price=0.4, skill=0.8,
        )  # fmt: skip
        probe = phi(own, state, Action("probe"), large=0.8)
        assert (probe.probe, probe.expert, probe.price, probe.skill) == (1.0, 0.0, 0.0, PRIOR_SKILL)

    def test_after_a_probe_and_an_expert(self) -> None:
        own = several()
        expert = Action("expert", own.registry.all_experts("a/x")[0])
        seen = (Observation(Action("probe"), "yes", 0.6, 0.2), Observation(expert, "yes", 0.5, 0.1))
        found = phi(own, state_of(own), Action("accept", None, 0), *seen, probe=0.9, small=0.7)
        assert (found.accept, found.probe, found.expert, found.price) == (1, 1, 0, 0)
        assert (found.skill, found.confidence, found.margin, found.agreement) == (0.9, 0.6, 0.2, 1.0)
        assert (found.asked, found.best_confidence, found.best_margin, found.best_skill) == (
            0.5,
            0.6,
            0.2,
            0.9,
        )
        other = phi(own, state_of(own), Action("accept", expert.expert, 1), *seen, probe=0.9, small=0.7)
        assert (other.probe, other.expert, other.skill, other.confidence) == (0, 1, 0.7, 0.5)

    def test_an_expert_that_was_heard_with_the_probe_looks_like_one_that_was_asked_alone(self) -> None:
        own = several()
        expert = Action("expert", own.registry.all_experts("a/x")[0])
        probed = Observation(Action("probe"), "no", 0.6, 0.2)
        joint = Observation(expert, "yes", 0.5, 0.1, pooled=True)
        alone = phi(own, state_of(own), Action("accept", expert.expert, 0), joint, small=0.7)
        assert phi(own, state_of(own), Action("accept", expert.expert, 1), probed, joint, small=0.7) == alone

    def test_answers_that_differ(self) -> None:
        own = several()
        small, large = (Action("expert", e) for e in own.registry.all_experts("a/x")[:2])
        seen = [Observation(a, label, 0.5) for a, label in ((small, "yes"), (large, "no"))]
        found = phi(own, state_of(own), Action("accept", small.expert, 0), *seen)
        assert (found.agreement, found.disagreement) == (-1.0, 1.0)
        asking = phi(own, state_of(own), large, *seen)
        assert (asking.agreement, asking.disagreement, asking.confidence) == (0.0, 1.0, 0.0)

    @settings(deadline=None, max_examples=60)
    @given(
        confidences=st.lists(st.floats(0, 1), max_size=8),
        cost=st.floats(0, 1e6),
        labels=st.lists(st.sampled_from(["a", "b", None]), min_size=8, max_size=8),
    )
    def test_all_but_the_agreement_lie_between_0_and_1(self, confidences, cost, labels) -> None:
        own = router(registry({"a/x": {"experts": [{"name": "e", "base_model_key": "m", "cost": cost}]}}))
        action = Action("expert", own.registry.all_experts("a/x")[0])
        seen = [Observation(action, label, c, c) for label, c in zip(labels, confidences, strict=False)]
        actions = [action, *(Action("accept", action.expert, i) for i in range(len(seen)))]
        for each in actions:
            values = phi(own, state_of(own), each, *seen).vector().tolist()
            found: Mapping[str, float] = dict(zip(FEATURES, values, strict=True))
            assert -1 <= found["agreement"] <= 1
            assert all(0 <= value <= 1 for name, value in found.items() if name != "agreement")

    def test_a_class_that_is_not_in_use_has_no_probability(self) -> None:
        assert Distribution(("a/x",), np.ones(1, np.float32), 0.0, 0.0).of("b/z") == 0.0

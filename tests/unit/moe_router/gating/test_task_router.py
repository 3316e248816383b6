from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import NoWorkerError
from moe_router.gating.heads import Distribution
from moe_router.gating.qnetwork import FEATURES, ActionFeatures, QNetwork
from moe_router.gating.task_router import (
    Action,
    Observation,
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


def router(own: Registry | None = None, network: QNetwork | None = None) -> TaskRouter:
    return TaskRouter(
        own or registry(), head_weights(), network or q_network({"task_probability": 1.0, "cost": -0.1}), {}
    )


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

    def test_a_costly_expert_may_lose_to_a_task_that_is_a_little_less_likely(self) -> None:
        own = router(registry({"a/x": {"experts": [EXPERTS[1]]}, "a/y": {}}))
        assert own.choose_task(state_of(own, 0.55, 0.45)) == "a/y"
        assert own.choose_task(state_of(own, 0.9, 0.1)) == "a/x"

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

    def test_a_probe_is_an_action_too(self) -> None:
        network = q_network({"probe": 1.0, "task_probability": 0.5})
        own = router(registry({"a/x": {}, "a/y": {"probe": PROBE}}), network)
        assert own.choose_task(state_of(own, 0.6, 0.4)) == "a/y"


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
    """With Q(accept) = the last confidence and Q(ask) = 0.6 less a tenth of the cost."""

    def made(self, **task: Any) -> TaskRouter:
        network = q_network({"expert": 0.6, "cost": -0.1}, CASCADE)
        return router(registry({"a/x": {"experts": EXPERTS, **task}}), network)

    def after(self, own: TaskRouter, *seen: Observation, via: Via = "auto", reachable=anything) -> Action:
        return own.next_action(state_of(own), "a/x", seen, via=via, reachable=reachable)

    def expert(self, own: TaskRouter, name: str) -> Action:
        return Action("expert", next(e for e in own.registry.all_experts("a/x") if e.name == name))

    def test_a_sure_answer_is_accepted(self) -> None:
        own = self.made()
        seen = Observation(self.expert(own, "small"), "yes", 0.9)
        assert self.after(own, seen) == Action("accept")

    def test_an_unsure_one_goes_on_to_who_has_not_been_asked(self) -> None:
        own = self.made()
        first = Observation(self.expert(own, "small"), "yes", 0.15)
        assert self.after(own, first) == self.expert(own, "large")
        second = Observation(self.expert(own, "large"), "no", 0.1)
        assert self.after(own, first, second) == Action("accept")

    def test_where_nobody_else_can_be_reached_the_answer_is_accepted(self) -> None:
        own = self.made()
        seen = Observation(self.expert(own, "small"), "yes", 0.01)
        assert self.after(own, seen, reachable=nothing) == Action("accept")

    def test_an_unsure_probe_is_followed_by_an_expert_unless_the_caller_wants_none(self) -> None:
        own = self.made(probe=PROBE)
        seen = Observation(Action("probe"), "yes", 0.3, 0.1)
        assert self.after(own, seen) == self.expert(own, "small")
        assert self.after(own, seen, via="probe") == Action("accept")
        assert self.after(own, seen, reachable=nothing) == Action("accept")


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


class TestFeatures:
    def test_before_anything_was_asked(self) -> None:
        own = several()
        state = state_of(own, 0.75, none=0.25, language="und")
        expert = own.registry.all_experts("a/x")[1]
        assert features(state, "a/x", Action("expert", expert), ()) == ActionFeatures(
            task_probability=0.75, none_probability=0.25, domain_probability=1.0, language_probability=0.9,
            undetermined=1.0, expert=1.0, cost=4.0,
        )  # fmt: skip
        probe = features(state, "a/x", Action("probe"), ())
        assert (probe.probe, probe.expert, probe.cost) == (1.0, 0.0, 0.0)

    def test_after_a_probe_and_an_expert(self) -> None:
        own = several()
        expert = Action("expert", own.registry.all_experts("a/x")[0])
        seen = (Observation(Action("probe"), "yes", 0.6, 0.2), Observation(expert, "yes", 0.5, 0.1))
        found = features(state_of(own), "a/x", Action("accept"), seen)
        assert (found.accept, found.probed, found.probe_confidence, found.probe_margin) == (1, 1, 0.6, 0.2)
        assert (found.asked, found.last_confidence, found.best_confidence) == (0.25, 0.5, 0.6)
        assert (found.agreement, found.repeated) == (1.0, 1.0)
        other = features(state_of(own), "a/x", Action("accept"), seen[::-1])
        assert (other.last_confidence, other.repeated) == (0.6, 0.0)

    @settings(deadline=None, max_examples=60)
    @given(
        confidences=st.lists(st.floats(0, 1), max_size=8),
        cost=st.floats(0, 1e6),
        labels=st.lists(st.sampled_from(["a", "b", None]), min_size=8, max_size=8),
    )
    def test_all_but_the_cost_lie_between_0_and_1(self, confidences, cost, labels) -> None:
        own = router(registry({"a/x": {"experts": [{"name": "e", "base_model_key": "m", "cost": cost}]}}))
        action = Action("expert", own.registry.all_experts("a/x")[0])
        seen = [Observation(action, label, c, c) for label, c in zip(labels, confidences, strict=False)]
        found: Mapping[str, float] = dict(
            zip(FEATURES, features(state_of(own), "a/x", action, seen).vector().tolist(), strict=True)
        )
        assert 0 <= found["cost"] <= 10
        assert all(0 <= value <= 1 for name, value in found.items() if name != "cost")

    def test_a_class_that_is_not_in_use_has_no_probability(self) -> None:
        assert Distribution(("a/x",), np.ones(1, np.float32), 0.0, 0.0).of("b/z") == 0.0

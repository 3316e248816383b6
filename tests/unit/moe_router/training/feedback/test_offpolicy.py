"""The estimate by hand: which rows count, and how much."""

from __future__ import annotations

import math

import pytest

from moe_router.gating.task_router import Policy
from moe_router.training.feedback.offpolicy import path_values, task_accuracy
from moe_router.training.feedback.replay import Step
from tests.unit.moe_router.gating.made import axis, registry
from tests.unit.moe_router.training.feedback_world import replay, row, serving, shipped

EXPERTS = [{"name": name, "base_model_key": "m", "cost": 2.0} for name in ("old", "new")]
REGISTRY = registry({"a/x": {"experts": EXPERTS}, "a/y": {}, "b/z": {}})


def step(name: str, **changed: object) -> Step:
    made = {"label": "yes", "confidence": 0.8, "margin": 0.6, "cost": 2.0, "accepted": True} | changed
    return Step(f"expert:{name}", **made)  # type: ignore[arg-type]


def estimate(rows, policy=None):
    own = serving(own=REGISTRY, policy=policy or Policy(cost_weight=0.1))
    router = own.make(shipped())
    return path_values((router, router), own.domains, replay(rows)).candidate


# The toy network values every action on a task alike, so that the first offered one is the best: of the
# experts `old`, then the expert that has not been asked, then the first answer.
BOTH = (step("old"), step("new", accepted=False))


def test_a_path_that_the_router_would_take_counts_with_one_over_its_propensity():
    rows = [
        row(steps=BOTH, correct_label="yes", propensity=0.5),
        row(steps=BOTH, correct_label="no", propensity=0.25),
    ]
    found = estimate(rows)
    # (2 * 1 + 4 * 0) / 6, less the price of two calls; (2 + 4)^2 / (4 + 16) rows.
    assert found.value == pytest.approx(1 / 3 - 0.4)
    assert found.effective == pytest.approx(1.8)


def test_a_path_that_it_would_not_take_counts_for_nothing():
    found = estimate([row(steps=(step("new"),), correct_label="yes", propensity=0.05)])
    assert math.isnan(found.value)
    assert found.effective == 0


def test_the_probability_is_of_every_action_and_of_accepting():
    """With exploration e each of n actions is taken with e / n, the best with 1 - e more."""
    policy = Policy(cost_weight=0.1, exploration=0.4)
    rows = [
        row(steps=(step("new"),), correct_label="yes", propensity=1.0),
        row(steps=BOTH, correct_label="no", propensity=1.0),
    ]
    found = estimate(rows, policy)
    new_then_accept = 0.2 * 0.2
    both = 0.8 * 0.8 * 0.8
    assert found.value == pytest.approx(
        (new_then_accept * (1 - 0.2) + both * (0 - 0.4)) / (new_then_accept + both), abs=1e-6
    )


def test_a_faulted_expert_counts_as_out_of_reach_and_its_call_as_free():
    fault = step("old", label=None, accepted=False, fault="no-worker")
    found = estimate([row(steps=(fault, step("new")), fault="no-worker", correct_label="yes")])
    assert found.value == pytest.approx(1 - 0.2)


def test_what_the_caller_left_open_to_the_router_is_what_it_is_judged_by():
    """Without its word the expert would be the first to be asked, and the probe's answer no path at all."""
    own = serving(own=registry({"a/x": {"experts": EXPERTS, "probe": {"path": "p"}}, "a/y": {}, "b/z": {}}))
    by_probe = Step("probe", "yes", 0.8, 0.6, 0.0, accepted=True)
    rows = [row(steps=(by_probe,), correct_label="yes", via=via) for via in ("probe", "auto", "expert")]
    router = own.make(shipped())
    found = path_values((router, router), own.domains, replay(rows)).candidate
    assert (found.value, found.effective) == (1, 1)


def test_routers_are_compared_on_the_rows_that_each_of_them_could_have_led_to():
    """The first does otherwise just where things went wrong: of what it does there nothing is known."""
    own = serving(own=REGISTRY, policy=Policy(cost_weight=0.1))
    live = own.make(shipped())
    rows = [row(steps=BOTH, correct_label=("yes", "no")[i % 2], caller=f"c-{i}") for i in range(40)]
    judged = replay(rows)

    class Elsewhere:
        """Goes for another task on every second request."""

        asked = 0

        def __getattr__(self, name: str):
            return getattr(live, name)

        def choose_task(self, state: object) -> str:
            self.asked += 1
            return "b/z" if self.asked % 2 == 0 else live.choose_task(state)

    found = path_values((Elsewhere(), live), own.domains, judged)
    assert found.candidate == found.live
    assert found.effective == pytest.approx(20)
    assert found.least == 0


def test_callers_weigh_alike_on_the_rows_that_count():
    """Of one caller's rows most are on paths that no router takes: the few that are left weigh as much."""
    rows = [row(caller="few", steps=BOTH, correct_label="yes")]
    rows += [row(caller="few", steps=(step("new"),), correct_label="no") for _ in range(8)]
    rows += [row(caller="many", steps=BOTH, correct_label="no") for _ in range(3)]
    assert estimate(rows).value == pytest.approx(0.5 - 0.4)


def test_a_wrong_task_and_an_expert_that_is_gone_have_probability_0():
    rows = [
        row(description=axis(1), steps=BOTH, correct_label="yes"),
        row(steps=(step("gone"),), correct_label="yes"),
        row(task="c/gone", steps=BOTH, correct_label="yes"),
    ]
    assert estimate(rows).effective == 0


def test_tasks_are_compared_directly_and_callers_count_alike():
    own = serving(own=REGISTRY)
    rows = [row(caller="many", correct_task="a/y") for _ in range(9)]
    rows += [row(caller="one", correct_task="a/x"), row(task_fixed=True, correct_task="a/y")]
    judged = replay(rows)
    found = task_accuracy((own.make(shipped()),) * 2, own.domains, judged).candidate
    assert found.value == pytest.approx(0.5)
    assert found.effective == pytest.approx(10**2 / (9 * (5 / 9) ** 2 + 5**2))


def test_a_right_answer_praises_no_choice_of_a_task_since_a_wrong_one_blames_none():
    own = serving(own=REGISTRY)
    rows = [row(correct_label="yes"), row(correct_label="no"), row(correct_task="gone/task")]
    routers = (own.make(shipped()),) * 2
    assert task_accuracy(routers, own.domains, replay(rows)).effective == 0
    told = [*rows, row(correct_task="a/y"), row(correct_task="a/x", correct_label="no")]
    found = task_accuracy(routers, own.domains, replay(told)).candidate
    assert (found.value, found.effective) == (0.5, 2)

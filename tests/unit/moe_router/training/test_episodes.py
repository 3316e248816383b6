"""What the network is trained on must be what the router shows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.contracts import UNDETERMINED
from moe_router.gating.heads import Distribution
from moe_router.gating.qnetwork import MAX_PRICE
from moe_router.gating.task_router import Action, Observation, Policy, State, features, standing
from moe_router.registry import Expert
from moe_router.training.episodes import (
    PROBE,
    Episodes,
    Known,
    ask_features,
    followers,
    joined,
    start_features,
)
from tests.unit.moe_router.training.made import episodes

TASKS = ("a/x", "b/y", "c/z")
POLICY = Policy(cost_weight=1.0)
SEEDS = st.integers(0, 2**32 - 1)


def state_of(own: Episodes, row: int) -> State:
    domains = Distribution(("a", "b", "c"), own.domain_probability[row], 0.0, 0.0)
    tasks = Distribution(TASKS, own.task_probability[row], float(own.none_probability[row]), 0.0)
    language = UNDETERMINED if own.undetermined[row] else "en"
    return State(np.zeros(1, np.float32), tasks, domains, language, float(own.language_probability[row]))


def action_of(own: Episodes, row: int, arm: int) -> Action:
    if arm == PROBE:
        return Action("probe")
    expert = Expert(f"e{arm}", "t", "m", None, None, None, None, float(own.price[row, arm]))
    return Action("expert", expert)


def shown(own: Episodes, row: int, task: int, action: Action, seen: list[Observation]) -> list[float]:
    skills = {"probe" if arm == PROBE else f"e{arm}": float(own.skill[row, arm]) for arm in range(own.arms)}
    found = features(state_of(own, row), TASKS[task], action, seen, skills=skills, policy=POLICY)
    return found.vector().tolist()


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_phi_of_first_actions(seed):
    own = episodes(4, np.random.default_rng(seed))
    found = start_features(own)
    for row in range(4):
        for task in range(3):
            for arm in range(3):
                expected = shown(own, row, task, action_of(own, row, arm), [])
                np.testing.assert_allclose(found[row, task * 3 + arm], expected, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_phi_of_what_follows_the_answers(seed):
    rng = np.random.default_rng(seed)
    heard = rng.random((4, 3)) < [0.0, 0.5, 0.0]
    own = episodes(4, rng, pooled=heard)
    task = rng.integers(0, 3, 4)
    known = Known.after_first(own, task, rng.integers(0, 3, 4), np.random.default_rng(1))
    if rng.random() < 0.5:
        known = known.after(rng.integers(-1, 3, 4))
    found = ask_features(known)
    for row in range(4):
        arms = np.flatnonzero(known.asked[row])
        seen = [
            Observation(
                action_of(own, row, arm), str(known.label[row, arm]), float(known.confidence[row, arm]),
                float(known.margin[row, arm]), bool(heard[row, arm]),
            )
            for arm in arms
        ]  # fmt: skip
        counted = known.standing[row]
        assert [s for s, arm in zip(seen, arms, strict=True) if counted[arm]] == list(standing(seen))
        for place, arm in enumerate(arms):
            if not counted[arm]:
                continue
            accept = Action("accept", seen[place].action.expert, place)
            expected = shown(own, row, int(task[row]), accept, seen)
            np.testing.assert_allclose(found[row, arm], expected, rtol=1e-5)
        for arm in set(range(3)) - set(arms.tolist()):
            expected = shown(own, row, int(task[row]), action_of(own, row, arm), seen)
            np.testing.assert_allclose(found[row, 3 + arm], expected, rtol=1e-5)


def test_what_may_follow():
    own = episodes(
        3, np.random.default_rng(0), offered=np.array([[True, True, True]] * 2 + [[True, True, False]])
    )
    known = Known.after_first(own, own.target, np.array([0, 1, 1]), np.random.default_rng(0))
    assert followers(known).astype(int).tolist() == [
        [1, 0, 0, 0, 1, 1],  # the probe has answered: accept it, or ask an expert
        [0, 1, 0, 0, 0, 1],  # after an expert the probe is not asked any more
        [0, 1, 0, 0, 0, 0],  # nobody is left
    ]
    assert followers(known.after(2))[0].astype(int).tolist() == [1, 0, 1, 0, 1, 0]
    assert (followers(known.after(-1)) == followers(known)).all()
    joint = replace(own, pooled=np.array([[False, False, True]] * 3))
    heard = Known.after_first(joint, own.target, np.array([0, 1, 1]), np.random.default_rng(0)).after(2)
    assert followers(heard)[0].astype(int).tolist() == [0, 0, 1, 0, 1, 0]  # the probe is part of what it said


def test_another_task_answers_with_somebody_elses_confidence_and_is_never_right():
    own = episodes(50, np.random.default_rng(0), target=np.zeros(50, np.intp), correct=np.ones((50, 3), bool))
    right = Known.after_first(own, own.target, own.target, np.random.default_rng(0))
    wrong = Known.after_first(own, own.target + 1, own.target, np.random.default_rng(0))
    assert (right.confidence == own.confidence).all()
    assert right.correct.all()
    assert not wrong.correct.any()
    assert sorted(wrong.confidence[:, 0]) == sorted(own.confidence[:, 0])


def test_prices_are_bounded_and_the_probe_is_free():
    own = episodes(2, np.random.default_rng(0), price=np.array([[3.0, 1.0, 50.0]] * 2, np.float32))
    assert own.priced(0.1).price.tolist() == [[0.0, np.float32(0.1), MAX_PRICE]] * 2
    by_row = own.priced(np.array([[0.1], [0.0]], np.float32)).price
    assert by_row[1].tolist() == [0.0, 0.0, 0.0]


def test_sets_are_joined_row_by_row():
    first, second = (episodes(count, np.random.default_rng(count)) for count in (2, 3))
    both = joined(first, second)
    assert len(both.target) == 5
    assert (both.take(np.arange(2, 5)).confidence == second.confidence).all()

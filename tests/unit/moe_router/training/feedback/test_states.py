from __future__ import annotations

import pytest

from moe_router.training.feedback.states import LANGUAGE, state_at, states_of, vectors_at
from tests.unit.moe_router.gating.made import axis
from tests.unit.moe_router.training.feedback_world import replay, row, serving, shipped


@pytest.fixture
def own():
    found = serving()
    return found.make(shipped()), found.domains


def test_a_row_of_zeros_was_not_encoded():
    judged = replay([row(text=axis(0) * 0, description=axis(1))])
    described, text = vectors_at(judged, 0)
    assert described.tolist() == axis(1).tolist()
    assert text is None


def test_the_state_is_what_the_router_would_have_known(own):
    router, domains = own
    state = state_at(router, domains, replay([row(description=axis(2))]), 0)
    assert router.choose_task(state) == "b/z"
    assert state.domains.names == ("a", "b")
    assert (state.language, state.language_probability) == ("en", 1.0)


def test_a_task_that_the_caller_fixed_is_certain_and_hides_the_description(own):
    router, domains = own
    judged = replay([row(description=axis(2), task="a/y", task_fixed=True)])
    state = state_at(router, domains, judged, 0)
    assert state.tasks.as_dict() == {"a/y": 1.0}
    assert state.domains.as_dict() == {"a": 1.0}
    assert state.encodings.tolist() == router.qnetwork.state(None, None).tolist()


def test_composed_requests_may_lack_either_vector(own):
    router, domains = own
    states = list(states_of(router, domains, None, [("x", (axis(0), None)), (None, (None, axis(1)))]))
    assert [router.choose_task(state) for state in states] == ["a/x", "a/y"]
    assert {state.language for state in states} == {LANGUAGE}

from __future__ import annotations

import pytest

from moe_router.registry import Registry
from moe_router.training.newcomer import Reach, lacking, told
from tests.unit.moe_router.gating.made import registry
from tests.unit.moe_router.training.decided import decision, judged


@pytest.fixture
def full() -> Registry:
    task = {"description": "What is it?", "examples": ["Tell me what."], "probe": {"path": "probes/x"}}
    return registry({"a/x": task, "a/y": task})


def test_before_a_task_was_added_the_registry_lacks_it(full):
    assert list(lacking(full, {"a/x"}).tasks) == ["a/y"]
    assert list(full.tasks) == ["a/x", "a/y"]


def test_of_a_task_that_is_added_the_description_alone_is_told(full):
    found = told(full, {"a/x"}).tasks
    assert found["a/x"].description == "What is it?"
    assert not found["a/x"].examples
    assert found["a/x"].probe is None
    assert found["a/y"] == full.tasks["a/y"]


def test_an_abstention_does_not_reach_the_task_though_it_is_the_likeliest():
    found = Reach.of([
        judged("a/x", decision("a/x", 0.9)), judged("a/x", decision("a/x", 0.9)),
        judged("a/x", decision("a/x", 0.4, kept=False)), judged("a/x", decision("a/y", 0.8)),
    ])  # fmt: skip
    assert found == Reach(reached=0.5, abstained=0.25, elsewhere=0.25, n=4)

"""Which candidates may go live, by numbers made for each reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moe_router.gating.heads import Distribution
from moe_router.training.feedback.judging import Bars, Guarded, guarded, judge
from tests.unit.moe_router.gating.made import axis
from tests.unit.moe_router.training.feedback_world import memory, replay, row, serving, shipped

OWN = serving()
ROUTER = OWN.make(shipped())


def guard(accuracy=0.95, auroc=0.98, value=0.7):
    return Guarded(accuracy, auroc, value, np.ones(4, np.float32), np.ones(4, np.bool_))


class Stubborn:
    """A router that goes for one task whatever is asked."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __getattr__(self, name: str):
        return getattr(ROUTER, name)

    def choose_task(self, _state: object) -> str:
        return self.task


def verdict(candidate=None, others=None, routers=None, rows=20):
    held = replay([row(caller=f"c-{i}", description=axis(2), correct_task="b/z") for i in range(rows)])
    routers = routers or (ROUTER, Stubborn("a/x"))
    return judge(candidate or guard(), others or (guard(), guard()), routers, OWN.domains, held, Bars())


def test_better_on_the_feedback_and_as_good_on_the_guard_passes():
    found = verdict()
    assert found.passed
    assert found.metrics["held_out"]["task_accuracy"] == {
        "candidate": 1.0, "live": 0.0, "effective_rows": 20.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"candidate": guard(accuracy=0.947)}, "guard: accuracy 0.9470, before 0.9500"),
        ({"others": (guard(), guard(accuracy=0.96))}, "guard: accuracy 0.9500, before 0.9600"),
        ({"candidate": guard(value=0.67)}, "guard: value of the answers 0.6700, before 0.7000"),
        ({"candidate": guard(auroc=0.97)}, "guard: out-of-scope AUROC 0.9700, before 0.9800"),
        ({"routers": (Stubborn("a/x"), ROUTER)}, "feedback: task accuracy 0.0000, live 1.0000"),
        ({"routers": (ROUTER, ROUTER)}, "feedback: no better than the live router on held-out rows"),
        ({"rows": 5}, "feedback: fewer than 10 held-out rows tell the two apart"),
    ],
)
def test_each_reason_to_refuse(given, reason):
    found = verdict(**given)
    assert found.reasons == (reason,)
    assert not found.passed
    assert found.metrics["reasons"] == [reason]


def test_small_losses_within_the_bars_are_allowed():
    assert verdict(candidate=guard(accuracy=0.9485, auroc=0.976)).passed


def test_the_guard_counts_only_tasks_of_the_registry_and_none():
    kept = memory(np.random.default_rng(0), each=10)
    found = guarded(ROUTER, OWN.domains, None, kept)
    assert len(found.right) == 40
    assert found.accuracy > 0.9
    assert found.auroc > 0.9


def test_what_no_request_guards_is_refused():
    found = verdict(candidate=guard(accuracy=float("nan")), others=(guard(float("nan")), guard(float("nan"))))
    assert found.reasons == ("guard: no request that guards is for a task of the registry",)


def test_the_guard_decides_as_is_served_with_the_words_of_the_description():
    class Words:
        """Sees `b/z` in every description."""

        def __call__(self, _description: str, tasks: Distribution) -> Distribution:
            return Distribution(tasks.names, np.array([0.0, 0.0, 1.0], np.float32), 0.0, 0.0)

    kept = memory(np.random.default_rng(0), each=10)
    said = [("a description", pair) for _, pair in kept.guard]
    found = guarded(ROUTER, OWN.domains, Words(), replace(kept, guard=said))
    assert found.accuracy == pytest.approx(1 / 3)
    assert (found.confidence == 1.0).all()

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


def guard(accuracy=0.95, auroc=0.98, value=0.7, confidence=1.0):
    sure = np.linspace(0, confidence, 100).astype(np.float32)
    return Guarded(accuracy, auroc, value, sure, np.ones(100, np.bool_), np.ones(100, np.bool_))


class Stubborn:
    """A router that goes for one task whatever is asked, or now and then for the right one."""

    def __init__(self, task: str, right_every: int = 0) -> None:
        self.task = task
        self.right_every = right_every
        self.asked = 0

    def __getattr__(self, name: str):
        return getattr(ROUTER, name)

    def choose_task(self, _state: object) -> str:
        self.asked += 1
        return "b/z" if self.right_every and self.asked % self.right_every == 0 else self.task


def verdict(candidate=None, others=None, routers=None, rows=20, thresholds=(0.6, 0.6)):
    held = replay([row(caller=f"c-{i}", description=axis(2), correct_task="b/z") for i in range(rows)])
    routers = routers or (ROUTER, Stubborn("a/x"))
    others = others or (guard(), guard())
    return judge(candidate or guard(), others, thresholds, routers, OWN.domains, held, Bars())


def test_better_on_the_feedback_and_as_good_on_the_guard_passes():
    found = verdict()
    assert found.passed
    assert found.metrics["held_out"]["task_accuracy"] == {
        "candidate": 1.0, "live": 0.0, "gain_at_least": 1.0, "effective_rows": 20.0,
    }  # fmt: skip
    assert found.metrics["guard"]["threshold"] == {"candidate": 0.6, "shipped": 0.6}
    assert found.metrics["guard"]["answered"] == {"candidate": 0.4, "shipped": 0.4}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"candidate": guard(accuracy=0.947)}, "guard: accuracy 0.9470, before 0.9500"),
        ({"others": (guard(), guard(accuracy=0.96))}, "guard: accuracy 0.9500, before 0.9600"),
        ({"candidate": guard(value=0.67)}, "guard: value of the answers 0.6700, before 0.7000"),
        ({"candidate": guard(auroc=0.97)}, "guard: out-of-scope AUROC 0.9700, before 0.9800"),
        ({"thresholds": (0.64, 0.6)}, "guard: answers 0.3600 of the requests, shipped 0.4000"),
        ({"candidate": guard(confidence=0.9)}, "guard: answers 0.3400 of the requests, shipped 0.4000"),
        ({"routers": (Stubborn("a/x"), ROUTER)}, "feedback: task accuracy 0.0000, live 1.0000"),
        ({"routers": (ROUTER, ROUTER)}, "feedback: no better than the live router on held-out rows"),
        (
            {"routers": (Stubborn("a/x", right_every=20), Stubborn("a/x"))},
            "feedback: better by 0.0500 on held-out rows may be chance: at least -0.0164, 90% sure",
        ),
        ({"rows": 5}, "feedback: fewer than 10 held-out rows tell the two apart"),
    ],
)
def test_each_reason_to_refuse(given, reason):
    found = verdict(**given)
    assert found.reasons == (reason,)
    assert not found.passed
    assert found.metrics["reasons"] == [reason]


def test_a_small_gain_passes_where_enough_rows_bear_it_out():
    routers = (Stubborn("a/x", right_every=20), Stubborn("a/x"))
    found = verdict(routers=routers, rows=200)
    assert found.passed
    assert 0 < found.metrics["held_out"]["task_accuracy"]["gain_at_least"] < 0.05


def test_what_an_older_live_version_answers_by_a_threshold_of_its_own_is_no_measure():
    assert verdict(others=(guard(confidence=2.0), guard())).passed


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

"""What a judged decision becomes for the Q-network."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest

from moe_router.contracts import UNDETERMINED
from moe_router.training.episodes import PROBE
from moe_router.training.feedback.episodes import feedback_episodes
from moe_router.training.feedback.evidence import asked_tasks, outcomes
from moe_router.training.feedback.replay import Step
from tests.unit.moe_router.gating.made import CLASSES, axis, registry
from tests.unit.moe_router.training.feedback_world import replay, row, serving, shipped

EXPERTS = [{"name": name, "base_model_key": "m", "cost": 2.0} for name in ("small", "big")]
REGISTRY = registry({"a/x": {"experts": EXPERTS}, "a/y": {}, "b/z": {}})
SMALL = Step("expert:small", "no", 0.4, 0.1, 2.0)
BIG = Step("expert:big", "yes", 0.9, 0.8, 4.0, accepted=True)
BY_PROBE = Step("probe", "no", 0.6, 0.2, 0.0)


def episodes(*rows, skills=None):
    own = serving(own=REGISTRY)
    judged = replay(rows)
    router = own.make(shipped(skills))
    return feedback_episodes(
        judged, asked_tasks(judged), outcomes(judged), router, own.domains, np.random.default_rng(0)
    )


def test_only_arms_with_a_known_outcome_are_offered():
    made, rows = episodes(
        row(steps=(BY_PROBE, SMALL, BIG), correct_label="yes"), skills={"a/x": {"big": 0.9, "probe": 0.5}}
    )
    assert rows == [0]
    offered = np.flatnonzero(made.offered[0])
    assert len(offered) == 3
    small, big = (column for column in offered if column != PROBE)
    assert made.correct[0, [PROBE, small, big]].tolist() == [False, False, True]
    assert made.price[0, [PROBE, small, big]].tolist() == [0.0, 2.0, 4.0]
    assert made.skill[0, [PROBE, small, big]] == pytest.approx([0.5, 0.75, 0.9])
    assert made.confidence[0, big] == pytest.approx(0.9)
    # Who says the same has the same number.
    assert made.label[0, PROBE] == made.label[0, small] != made.label[0, big]


def test_an_expert_that_was_heard_with_the_probe_stays_so():
    joint = changed(BIG, pooled=True)
    made, _ = episodes(row(steps=(BY_PROBE, SMALL, joint), correct_label="yes"))
    columns = np.flatnonzero(made.pooled[0])
    assert made.confidence[0, columns] == pytest.approx([0.9])


def test_a_row_that_tells_only_the_task_gets_drawn_arms():
    made, _ = episodes(row(description=axis(2), correct_task="b/z"))
    assert CLASSES[made.target[0]] == "b/z"
    assert made.offered[0].any()


def test_rows_that_tell_nothing_give_no_episodes():
    faulted = Step("expert:big", None, 0.0, 0.0, 2.0, fault="no-worker")
    assert episodes(row(), row(steps=(faulted,), score=1.0)) is None


def test_a_wrong_answer_leaves_its_task_the_likeliest():
    made, rows = episodes(row(), row(steps=(BIG,), correct_label="no"))
    assert rows == [1]
    assert CLASSES[made.target[0]] == "a/x"
    assert not made.correct[0][made.offered[0]].any()


def test_a_fixed_task_hides_the_description():
    made, _ = episodes(row(steps=(BIG,), correct_label="yes", task_fixed=True))
    assert not made.description.any()
    assert made.task_probability[0].tolist() == [1.0, 0.0, 0.0]


def test_a_fixed_task_that_was_the_wrong_one_teaches_nothing():
    """The state says that a/x is certain, since the caller named it; the router chose nothing wrong."""
    wrong = row(steps=(BIG,), task_fixed=True, correct_task="b/z")
    assert episodes(wrong) is None
    _, rows = episodes(wrong, row(steps=(BIG,), task_fixed=True, correct_task="a/x"))
    assert rows == [1]


def test_a_language_that_could_not_be_told_stays_so():
    own = serving(own=REGISTRY)
    judged = changed(
        replay([row(correct_task="b/z"), row(correct_task="a/x")]), language=(UNDETERMINED, "en")
    )
    router = own.make(shipped())
    made, _ = feedback_episodes(
        judged, asked_tasks(judged), outcomes(judged), router, own.domains, np.random.default_rng(0)
    )
    assert made.undetermined.tolist() == [True, False]

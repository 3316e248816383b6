from __future__ import annotations

import numpy as np
import pytest

from moe_router.training.feedback.evidence import asked_tasks, caller_weights, outcomes
from moe_router.training.feedback.replay import Step
from moe_router.training.feedback.skills import posterior_skills
from tests.unit.moe_router.training.feedback_world import NAN, replay, row

GOOD = Step("expert:m", "yes", 0.8, 0.6, 1.0, accepted=True)
PASSED_OVER = Step("probe", "no", 0.4, 0.1, 0.0)
FAULTED = Step("expert:m", None, 0.0, 0.0, 1.0, fault="no-worker")


@pytest.mark.parametrize(
    ("said", "task", "judged"),
    [
        ({"correct_task": "a/y", "correct_label": "yes"}, "a/y", []),  # answers to a wrong task
        ({"correct_task": "a/x"}, "a/x", []),
        ({"correct_label": "yes"}, "a/x", [("probe", 0.0), ("m", 1.0)]),  # a label judges every answer
        ({"correct_label": "no"}, None, [("probe", 1.0), ("m", 0.0)]),
        ({"score": 0.75}, "a/x", [("m", 0.75)]),  # a score only the answer given
        ({"score": 0.25}, None, [("m", 0.25)]),
        ({"score": 0.0, "steps": (FAULTED,), "fault": "no-worker"}, None, []),
        ({"correct_label": "yes", "steps": (FAULTED,), "fault": "deadline"}, None, []),
        ({"task": None, "steps": (), "correct_task": "b/z"}, "b/z", []),
        ({"task": None, "steps": (), "score": 1.0}, None, []),
    ],
)  # fmt: skip
def test_what_a_row_proves(said, task, judged):
    found = replay([row(**({"steps": (PASSED_OVER, GOOD)} | said))])
    assert asked_tasks(found) == [task]
    assert [(o.name, o.quality) for o in outcomes(found)] == judged


def test_every_caller_weighs_as_much_as_any_other():
    weight = caller_weights(["a", "a", "a", "b"])
    assert weight.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert np.mean(weight) == pytest.approx(1.0)
    assert len(caller_weights([])) == 0


def skill_after(rows, prior=0.9):
    found = replay(rows)
    return posterior_skills({"a/x": {"m": prior}}, outcomes(found), found.caller)["a/x"]["m"]


def test_a_skill_is_a_posterior_mean():
    assert skill_after([row(correct_label="no")] * 10) == pytest.approx(0.9 * 20 / 30)
    assert skill_after([row(score=NAN, correct_task="a/x")]) == pytest.approx(0.9)


def test_one_caller_moves_a_skill_at_most_half_way():
    assert skill_after([row(correct_label="no")] * 2000) == pytest.approx(0.45)
    many = [row(caller=f"c-{i % 20}", correct_label="no") for i in range(2000)]
    assert skill_after(many) == pytest.approx(0.9 * 20 / 420)

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
    assert skill_after([row(correct_label="no")] * 4) == pytest.approx(0.9 * 20 / 24)
    assert skill_after([row(score=NAN, correct_task="a/x")]) == pytest.approx(0.9)


def test_one_caller_alone_moves_a_skill_at_most_a_fifth_of_the_way():
    assert skill_after([row(correct_label="no")] * 2000) == pytest.approx(0.9 * 20 / 25)
    assert skill_after([row(correct_label="yes")] * 2000, prior=0.2) == pytest.approx(9 / 25)


def test_many_callers_who_agree_outweigh_what_was_known():
    many = [row(caller=f"c-{i % 20}", correct_label="no") for i in range(2000)]
    assert skill_after(many) == pytest.approx(0.9 * 20 / 420)


@pytest.mark.parametrize(("callers", "each"), [(1, 20), (4, 5), (2, 20), (6, 20), (20, 2)])
def test_wrong_labels_of_one_caller_hardly_move_a_skill_that_others_bear_out(callers, each):
    lies = [row(caller="evil", correct_label="no") for _ in range(500)]
    truth = [
        row(caller=f"c-{i}", correct_label="no" if n % 5 == 4 else "yes")
        for i in range(callers) for n in range(each)
    ]  # fmt: skip
    assert 0 < skill_after(truth, 0.84) - skill_after(lies + truth, 0.84) < 0.1


def test_nor_does_one_row_of_another_caller_bear_out_five_hundred():
    lies = [row(caller="evil", correct_label="no") for _ in range(500)]
    assert skill_after([*lies, row(caller="c", correct_label="no")]) == pytest.approx(0.9 * 20 / 27)

from __future__ import annotations

from typing import Any

import pytest

from app.services.router_report import answer_right, report, task_right
from app.storage.judged import JudgedRow
from tests.stubs.records import TASK, step

ABSTAINED: dict[str, Any] = {"task": None, "observations": [], "correct_task": TASK}


def row(**values: Any) -> JudgedRow:
    made: dict[str, Any] = {
        "task": TASK,
        "task_fixed": False,
        "task_probabilities": {TASK: 0.9},
        "observations": [step()],
        "router_version": None,
        "abstained": None,
        "correct_task": None,
        "correct_label": None,
        "score": None,
    }
    return JudgedRow(**(made | values))


@pytest.mark.parametrize(
    ("said", "task", "answer"),
    [
        ({"correct_task": TASK}, True, None),
        ({"correct_task": "social/tone"}, False, False),
        ({"correct_task": TASK, "task_fixed": True}, None, None),
        ({"correct_label": "positive"}, None, True),
        ({"correct_label": "neutral"}, None, False),
        ({"correct_task": TASK, "correct_label": "neutral"}, True, False),
        ({"correct_task": "social/tone", "correct_label": "positive"}, False, False),
        ({"score": 1.0}, None, True),
        ({"score": 0.0}, None, False),
        ({"score": 1.0, "observations": [step(accepted=False)]}, None, None),
        ({"score": 1.0, "observations": []}, None, None),
        ({"task": None, "observations": [], "correct_task": TASK}, False, None),
        ({"task": None, "observations": [], "score": 1.0}, None, None),
        (ABSTAINED | {"abstained": "out_of_scope"}, False, None),
        (ABSTAINED | {"abstained": "expert_unavailable"}, None, None),
    ],
)
def test_what_feedback_proves(said: dict[str, Any], task: bool | None, answer: bool | None) -> None:
    assert (task_right(row(**said)), answer_right(row(**said))) == (task, answer)


def test_versions_are_told_apart() -> None:
    two = [step(action="probe", cost=0.0, accepted=False), step(cost=2.0)]
    rows = [
        row(correct_label="positive"),
        row(correct_label="neutral"),
        row(correct_task=TASK, correct_label="positive", router_version=3, observations=two),
        row(score=0.0, router_version=3, observations=[step(fault="no-worker", accepted=False)]),
    ]
    found = report(rows, total=9)
    assert (found.rows, found.read) == (9, 4)
    shipped, third = found.by_version
    assert (shipped.version, shipped.rows, shipped.answers_judged) == (None, 2, 2)
    assert (shipped.answer_accuracy, shipped.mean_cost) == (0.5, 1.0)
    assert (third.version, third.rows, third.answers_judged) == (3, 2, 1)
    assert (third.task_accuracy, third.answer_accuracy, third.mean_cost) == (1.0, 1.0, 2.0)


def test_wrong_answers_leave_the_tasks_accuracy_as_right_ones_do() -> None:
    told = [row(correct_task=TASK), row(correct_task="social/tone")]
    right, wrong = [row(correct_label="positive")] * 9, [row(correct_label="neutral")] * 9
    for rows in (told, told + right, told + wrong):
        (found,) = report(rows, total=len(rows)).by_version
        assert (found.tasks_told, found.task_accuracy) == (2, 0.5)


def test_reliability_is_binned_by_confidence() -> None:
    sure = [row(correct_task=TASK) for _ in range(3)] + [row(correct_task="social/tone")]
    unsure = row(correct_task=TASK, task_probabilities={TASK: 0.31})
    certain = row(correct_task=TASK, task_probabilities={TASK: 1.0})
    lower, upper = report([*sure, unsure, certain], total=6).task_reliability
    assert (lower.confidence, lower.accuracy, lower.rows) == (0.31, 1.0, 1)
    assert (upper.confidence, upper.accuracy, upper.rows) == (0.92, 0.8, 5)


def test_without_feedback_there_are_no_figures() -> None:
    found = report([], total=0)
    assert found.by_version == found.task_reliability == found.answer_reliability == []

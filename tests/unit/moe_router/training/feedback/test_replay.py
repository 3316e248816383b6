from __future__ import annotations

import math

import numpy as np
import pytest

from moe_router.training.feedback.replay import Replay, Step

ANSWERED = Step("expert:big", "positive", 0.9, 0.8, 1.0, accepted=True)
PASSED_OVER = Step("expert:small", "negative", 0.3, 0.1, 1.0)
FAULTED = Step("expert:big", None, 0.0, 0.0, 1.0, fault="no-worker")
NAN = float("nan")


def replay(
    task: str | None,
    steps: tuple[Step, ...],
    correct_task: str | None,
    correct_label: str | None,
    score: float,
) -> Replay:
    one = np.ones(1, np.float32)
    return Replay(
        request_id=("r",),
        caller=("c",),
        decided_at=np.ones(1),
        judged_at=np.ones(1),
        description=np.ones((1, 2), np.float32),
        text=np.ones((1, 2), np.float32),
        language=("de",),
        language_probability=one,
        domains=("a",),
        domain_probability=one[:, None],
        tasks=("a/b",),
        task_probability=one[:, None],
        none_probability=one * 0,
        task=(task,),
        task_fixed=np.zeros(1, np.bool_),
        via=("auto",),
        action=("expert:big",),
        propensity=one,
        steps=(steps,),
        fault=(steps[0].fault if steps else None,),
        router_version=(None,),
        correct_task=(correct_task,),
        correct_label=(correct_label,),
        score=np.array([score], np.float32),
    )


@pytest.mark.parametrize(
    ("task", "steps", "correct_task", "correct_label", "score", "quality"),
    [
        ("a/b", (ANSWERED,), None, "positive", NAN, 1.0),
        ("a/b", (ANSWERED,), None, "negative", 1.0, 0.0),  # a label says more than a score
        ("a/b", (ANSWERED,), None, None, 0.25, 0.25),
        ("a/b", (ANSWERED,), "a/b", "positive", NAN, 1.0),
        ("a/b", (ANSWERED,), "a/b", None, NAN, NAN),  # the right task; of the label nothing is known
        ("a/b", (ANSWERED,), "a/c", "positive", 1.0, 0.0),
        (None, (), "a/b", None, NAN, 0.0),  # abstained from what has a task
        (None, (), None, None, 1.0, 1.0),  # rightly abstained
        ("a/b", (FAULTED,), None, "positive", NAN, NAN),
        ("a/b", (FAULTED,), None, None, 0.0, NAN),
        ("a/b", (FAULTED,), "a/c", None, NAN, 0.0),  # the task was wrong, whoever could be reached
        ("a/b", (FAULTED, ANSWERED), None, "positive", NAN, 1.0),
        ("a/b", (ANSWERED, PASSED_OVER), None, "positive", NAN, 1.0),  # the first answer was accepted
    ],
)
def test_quality_is_told_by_the_task_then_the_label_then_the_score_and_never_by_a_fault(
    task, steps, correct_task, correct_label, score, quality
):
    found = replay(task, steps, correct_task, correct_label, score).quality()
    assert found.dtype == np.float32
    assert found[0] == quality or (math.isnan(found[0]) and math.isnan(quality))

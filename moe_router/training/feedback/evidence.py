"""What judged decisions prove: which task was asked for, and whose answers were right.

A fault or a timeout proves neither: a step without an answer is left out wherever quality counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moe_router.gating.task_router import PROBE
from moe_router.gating.weights import Floats
from moe_router.training.feedback.replay import Replay, Step

RIGHT = 0.5
"""An answer that is judged at least this good was for the task that was asked for."""
EXPERT_PREFIX = "expert:"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How right one arm's answer to one row was."""

    row: int
    task: str
    name: str
    """the expert's name, or `probe`"""
    step: Step
    quality: float
    """in [0, 1]"""


def asked_tasks(replay: Replay) -> list[str | None]:
    """The task that each row was about, as far as the feedback tells.

    The caller's word, or the task chosen where its answer is judged right. None where the feedback
    does not tell; a wrong label of the right task does not, since the task may have been wrong, too.
    """
    quality = replay.quality()
    return [
        correct if correct is not None else (chosen if quality[row] >= RIGHT else None)
        for row, (correct, chosen) in enumerate(zip(replay.correct_task, replay.task, strict=True))
    ]


def outcomes(replay: Replay) -> list[Outcome]:
    """The answers whose rightness is known.

    A label judges every answer to its row; a score only the one that was given. Where the task was
    wrong, its experts' answers prove nothing about them.
    """
    return [found for row in range(len(replay)) for found in _of_row(replay, row)]


def name_of(step: Step) -> str:
    """Who was asked: the expert's name, or `probe`."""
    return step.action.removeprefix(EXPERT_PREFIX) if step.action != PROBE else PROBE


def caller_weights(callers: Sequence[str]) -> Floats:
    """A weight for each row, so that every caller counts as much as any other; their mean is 1."""
    count = Counter(callers)
    total = len(callers) / max(len(count), 1)
    return np.array([total / count[caller] for caller in callers], np.float32)


def _of_row(replay: Replay, row: int) -> Iterator[Outcome]:
    task, correct_task = replay.task[row], replay.correct_task[row]
    if task is None or (correct_task is not None and correct_task != task):
        return
    label, score = replay.correct_label[row], float(replay.score[row])
    for step in replay.steps[row]:
        if step.fault is not None or step.label is None:
            continue
        if label is not None:
            yield Outcome(row, task, name_of(step), step, float(step.label == label))
        elif step.accepted and not np.isnan(score):
            yield Outcome(row, task, name_of(step), step, score)

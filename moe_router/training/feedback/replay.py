"""What the router learns from: decisions that callers have judged, as plain arrays.

n rows, newest feedback first; k tasks and d domains that occur in them. Faults of workers and of the
time are kept apart from quality: they are never a reward, only a reason why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.task_router import Via
from moe_router.gating.weights import Floats


@dataclass(frozen=True, slots=True)
class Step:
    """One action taken on a request, and what came of it."""

    action: str
    """`probe`, or `expert:` and the expert's name"""
    label: str | None
    """null where it could not be asked; a label outside of the task's own is a hash, as `correct_label`"""
    confidence: float
    margin: float
    cost: float
    pooled: bool = False
    """whether the expert was heard together with the probe"""
    accepted: bool = False
    """whether this answer was the one given"""
    fault: str | None = None
    """slug of the error, where it could not be asked"""


@dataclass(frozen=True, slots=True)
class Replay:
    """Judged decisions. A row of zeros stands for a vector that was not encoded."""

    request_id: tuple[str, ...]
    caller: tuple[str, ...]
    """hash of the caller who gave the feedback"""
    decided_at: NDArray[np.float64]
    """(n,) Unix time in seconds"""
    judged_at: NDArray[np.float64]
    """(n,) Unix time in seconds"""
    description: Floats
    """(n, hidden)"""
    text: Floats
    """(n, hidden)"""
    language: tuple[str, ...]
    language_probability: Floats
    """(n,)"""
    domains: tuple[str, ...]
    domain_probability: Floats
    """(n, d); 0 for a domain that was unknown then"""
    tasks: tuple[str, ...]
    task_probability: Floats
    """(n, k); 0 for a task that was unknown then; with `none_probability` a row sums to 1"""
    none_probability: Floats
    """(n,)"""
    task: tuple[str | None, ...]
    """chosen; None where gating abstained"""
    task_fixed: NDArray[np.bool_]
    """(n,): the caller named the task, the router chose only among its experts"""
    via: tuple[Via, ...]
    """whether the caller let the probe answer"""
    action: tuple[str | None, ...]
    """the first action"""
    propensity: Floats
    """(n,) of all actions together, in (0, 1]; below 1 only where the router explored"""
    steps: tuple[tuple[Step, ...], ...]
    """every action in order, the first included"""
    fault: tuple[str | None, ...]
    """slug of the last fault on the way; the request may have been answered all the same"""
    router_version: tuple[int | None, ...]
    """None: the shipped weights"""
    correct_task: tuple[str | None, ...]
    correct_label: tuple[str | None, ...]
    score: Floats
    """(n,) in [0, 1]; NaN where none was given"""

    def __len__(self) -> int:
        return len(self.request_id)

    def take(self, rows: Sequence[int]) -> Replay:
        """These rows."""
        index = np.asarray(rows, np.intp)
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("domains", "tasks"):  # names of columns
                changed[field.name] = value
            else:
                changed[field.name] = (
                    value[index] if isinstance(value, np.ndarray) else tuple(value[i] for i in index)
                )
        return Replay(**changed)

    def label(self, row: int) -> str | None:
        """The label that was answered; None where none was."""
        return next((s.label for s in self.steps[row] if s.accepted), None)

    def quality(self) -> Floats:
        """How right each answer was: (n,) in [0, 1], NaN where the feedback does not say.

        The wrong task is 0, also where gating abstained from a request that has one. An answer for the
        right task is judged by its label, else by the score. A request that ended in a fault got no
        answer: it says nothing about quality.
        """
        return np.array([self._quality(row) for row in range(len(self))], np.float32)

    def _quality(self, row: int) -> float:
        task, correct_task = self.task[row], self.correct_task[row]
        if correct_task is not None and correct_task != task:
            return 0.0
        label, correct_label = self.label(row), self.correct_label[row]
        if label is None and task is not None:
            return float("nan")
        if correct_label is not None and task is not None:
            return float(label == correct_label)
        return float(self.score[row])

"""Whether a candidate may take the live router's place: a guard, and the held-out feedback.

The guard: on requests of the validation families the candidate is not worse than the live router,
nor than the shipped one, so that many small losses do not add up; nor on simulated answers, whose
rightness nobody can have lied about; and by its own threshold it answers about as many as the shipped
router does by the shipped one. The feedback: on rows that taught neither of them, the candidate is better
at the task or at the answers, by more than chance, and at neither worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.heads import NONE, MixtureHead
from moe_router.gating.task_router import TaskRouter
from moe_router.gating.weights import Floats
from moe_router.gating.wording import Wording
from moe_router.training.feedback.comparison import SURE, Comparison
from moe_router.training.feedback.memory import Memory
from moe_router.training.feedback.offpolicy import path_values, task_accuracy
from moe_router.training.feedback.play import play
from moe_router.training.feedback.replay import Replay
from moe_router.training.feedback.states import states_of
from moe_router.training.metrics import auroc
from moe_router.training.simulation import simulate

PLAYED = 2_000
"""Simulated requests by which the answers are guarded."""


@dataclass(frozen=True, slots=True)
class Bars:
    """What a candidate has to reach."""

    accuracy_fall: float = 0.002
    """of the guarded requests, as a share"""
    auroc_fall: float = 0.005
    """of telling what fits no task"""
    value_fall: float = 0.01
    """of the answers by the feedback, where the gain is in the tasks"""
    answers_fall: float = 0.02
    """of the answers to simulated requests"""
    answered_fall: float = 0.02
    """of the share of guarded requests for a task that are answered"""
    least_rows: float = 10.0
    """held-out rows, as many as they are worth; an estimate on fewer counts for nothing"""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A router on the guarded requests."""

    accuracy: float
    """share of the requests that fit a task for which it goes for the right one; nan where there are none"""
    auroc: float
    """of the confidence, for whether a request fits any task; nan where all do"""
    value: float
    """of its answers to simulated requests, less what they cost"""
    confidence: Floats
    right: NDArray[np.bool_] = field(repr=False)
    fits: NDArray[np.bool_] = field(repr=False)
    """whether a request is for a task of the registry"""

    def coverage(self, threshold: float) -> float:
        """Share of the requests that are answered by this threshold."""
        return float((self.confidence >= threshold).mean()) if len(self.confidence) else 0.0

    def risk(self, threshold: float) -> float:
        """Share of what is answered that goes to a wrong task; 0 where nothing is."""
        answered = self.confidence >= threshold
        return float((~self.right[answered]).mean()) if answered.any() else 0.0

    def answered(self, threshold: float) -> float:
        """Share of the requests that fit a task that are answered; nan where there are none."""
        return float((self.confidence[self.fits] >= threshold).mean()) if self.fits.any() else float("nan")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate may go live, why not, and what was measured."""

    reasons: tuple[str, ...]
    metrics: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def guarded(
    router: TaskRouter, domains: MixtureHead, words: Wording | None, memory: Memory, seed: int = 0
) -> Guarded:
    """Decides the guarded requests for tasks of the registry or for none, and answers simulated ones."""
    known = {*router.registry.tasks, NONE}
    kept = [row for row, target in enumerate(memory.guard_target) if target in known]
    targets = np.array([memory.guard_target[row] for row in kept])
    chosen, confidence = [], []
    for state in states_of(router, domains, words, [memory.guard[row] for row in kept]):
        task = router.choose_task(state)
        chosen.append(task)
        confidence.append(state.tasks.of(task))
    right = np.array(chosen) == targets
    fits = targets != NONE
    accuracy = float(right[fits].mean()) if fits.any() else float("nan")
    sure = np.array(confidence, np.float32)
    made = simulate(
        memory.requests[:PLAYED], router.registry, (domains, router.head), words, memory.embed, seed
    )
    value = play(router.qnetwork, made.priced(router.policy.cost_weight))
    return Guarded(accuracy, auroc(sure.astype(np.float64), fits), value, sure, right, fits)


def judge(
    candidate: Guarded,
    others: Sequence[Guarded],
    thresholds: tuple[float, float],
    routers: tuple[TaskRouter, TaskRouter],
    domains: MixtureHead,
    held: Replay,
    bars: Bars,
) -> Verdict:
    """The verdict on a candidate.

    Args:
        candidate: on the guarded requests.
        others: the live router on them, then the shipped one.
        thresholds: below which the candidate abstains, and the shipped router.
        routers: the candidate, then the live one.
        domains: the domain head.
        held: feedback that taught neither.
        bars: what has to be reached.
    """
    tasks = task_accuracy(routers, domains, held)
    values = path_values(routers, domains, held)
    answered = [g.answered(t) for g, t in zip((candidate, others[-1]), thresholds, strict=True)]
    reasons = [*_guard_reasons(candidate, others, answered, bars), *_feedback_reasons(tasks, values, bars)]
    metrics = {
        "guard": {
            "requests": len(candidate.right),
            **{
                name: {"accuracy": _number(g.accuracy), "auroc": _number(g.auroc), "value": _number(g.value)}
                for name, g in zip(("candidate", "live", "shipped"), (candidate, *others), strict=False)
            },
            "threshold": dict(zip(("candidate", "shipped"), thresholds, strict=True)),
            "answered": dict(zip(("candidate", "shipped"), map(_number, answered), strict=True)),
        },
        "held_out": {
            "rows": len(held),
            "callers": len(set(held.caller)),
            "task_accuracy": _pair(tasks),
            "value": _pair(values),
        },
        "reasons": reasons,
    }
    return Verdict(tuple(reasons), metrics)


def _guard_reasons(
    candidate: Guarded, others: Sequence[Guarded], answered: Sequence[float], bars: Bars
) -> list[str]:
    if math.isnan(candidate.accuracy):
        return ["guard: no request that guards is for a task of the registry"]
    best = max(g.accuracy for g in others)
    reasons = []
    if candidate.accuracy < best - bars.accuracy_fall:
        reasons.append(f"guard: accuracy {candidate.accuracy:.4f}, before {best:.4f}")
    dearest = max(g.value for g in others)
    if candidate.value < dearest - bars.answers_fall:
        reasons.append(f"guard: value of the answers {candidate.value:.4f}, before {dearest:.4f}")
    clearest = max(g.auroc for g in others)
    if candidate.auroc < clearest - bars.auroc_fall:
        reasons.append(f"guard: out-of-scope AUROC {candidate.auroc:.4f}, before {clearest:.4f}")
    if answered[0] < answered[1] - bars.answered_fall:
        reasons.append(f"guard: answers {answered[0]:.4f} of the requests, shipped {answered[1]:.4f}")
    return reasons


def _feedback_reasons(tasks: Comparison, values: Comparison, bars: Bars) -> list[str]:
    told = [found for found in (tasks, values) if found.effective >= bars.least_rows]
    if not told:
        return [f"feedback: fewer than {bars.least_rows:g} held-out rows tell the two apart"]
    reasons = []
    if tasks in told and tasks.gain < 0:
        reasons.append(f"feedback: task accuracy {tasks.candidate.value:.4f}, live {tasks.live.value:.4f}")
    if values in told and values.gain < -bars.value_fall:
        reasons.append(f"feedback: value {values.candidate.value:.4f}, live {values.live.value:.4f}")
    if not reasons and not any(found.least > 0 for found in told):
        best = max(told, key=lambda found: found.gain)
        if best.gain <= 0:
            reasons.append("feedback: no better than the live router on held-out rows")
        else:
            reasons.append(
                f"feedback: better by {best.gain:.4f} on held-out rows may be chance: at least "
                f"{best.least:.4f}, {SURE:.0%} sure"
            )
    return reasons


def _pair(found: Comparison) -> dict[str, Any]:
    return {
        "candidate": _number(found.candidate.value),
        "live": _number(found.live.value),
        "gain_at_least": _number(found.least),
        "effective_rows": round(found.effective, 1),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)

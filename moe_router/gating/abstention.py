"""Abstaining: when gating would rather not answer, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_router.contracts import Abstention
from moe_router.errors import ModelAssetError
from moe_router.gating.heads import Distribution

NEAREST = 3
"""So many tasks are named to a caller whose request fits none."""


def threshold_for(meta: Mapping[str, Any], target_risk: float) -> float:
    """The confidence below which to abstain so that at most `target_risk` of the answers are wrong.

    Args:
        meta: of the task head's weights; `coverage_risk` lists {risk, threshold, coverage}, measured
            on the validation families.
        target_risk: the share of answered requests that may go to a wrong task.

    Raises:
        ModelAssetError: the weights hold no such list.
    """
    try:
        curve = sorted((float(row["risk"]), float(row["threshold"])) for row in meta["coverage_risk"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelAssetError(f"the task head's weights hold no coverage-risk curve: {error}") from error
    if not curve:
        raise ModelAssetError("the task head's weights hold an empty coverage-risk curve")
    allowed = [threshold for risk, threshold in curve if risk <= target_risk]
    return min(allowed) if allowed else max(threshold for _, threshold in curve)


def judge(tasks: Distribution, chosen: str, threshold: float) -> Abstention | None:
    """Abstains where the chosen task's probability is below the threshold."""
    best = tasks.of(chosen)
    if best >= threshold:
        return None
    if tasks.none > best:
        detail = (
            f"The request fits none of the tasks (probability {tasks.none:.2f}). "
            "Say in `description` what to find out, or name one in options.task."
        )
        return Abstention(reason="out_of_scope", detail=detail, nearest_tasks=nearest(tasks))
    detail = (
        f"The likeliest task has probability {best:.2f}, below the limit of {threshold:.2f}. "
        "Say in `description` what to find out, or name a task in options.task."
    )
    return Abstention(reason="low_confidence", detail=detail, nearest_tasks=nearest(tasks))


def unknown_language(tasks: Sequence[str]) -> Abstention:
    """The text's language cannot be told, and nothing else says it."""
    detail = "The language of the text cannot be told. Set options.language, or describe the request."
    return Abstention(reason="unknown_language", detail=detail, nearest_tasks=list(tasks))


def expert_unavailable(task_key: str, *, probe_only: bool = False) -> Abstention:
    """No worker of the mapping holds a model that serves the task, or it has no probe where only one may."""
    lacks = "has no probe, and options.via asks for one" if probe_only else "no worker of the mapping serves"
    detail = f"The request is for {task_key}, which {lacks}."
    return Abstention(reason="expert_unavailable", detail=detail, nearest_tasks=[task_key])


def nearest(tasks: Distribution) -> list[str]:
    """The likeliest tasks, best first."""
    order = np.argsort(-tasks.probabilities)[:NEAREST]
    return [tasks.names[index] for index in order]

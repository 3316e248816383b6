"""What the router's versions are, and what callers' feedback says about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from moe_router.contracts import Answer, Probability, Wire

if TYPE_CHECKING:
    from app.storage.judged import JudgedRow
    from app.storage.router_versions import VersionInfo

BINS = 10
RIGHT = 0.5
"""An answer that is judged at least this good counts as right, as for the learner."""
READ_ROWS = 2000
Pairs = list[tuple[float, bool]]


class PromoteRequest(Wire):
    """Which version is to go live."""

    version: int = Field(ge=1, le=2**31 - 1)


class RollbackRequest(Wire):
    """Which version, live now, is to be taken back."""

    version: int = Field(ge=1, le=2**31 - 1, description="Where another one is live by now: 409.")


class RouterVersion(Answer):
    """Weights that were learned from feedback."""

    version: int
    state: Literal["live", "candidate", "retired", "rejected"]
    created_at: str
    promoted_at: str | None = Field(description="When it last became live.")
    parent: int | None = Field(description="What its training started from; null: the shipped weights.")
    metrics: dict[str, Any] = Field(description="What the learner measured, and why it was rejected.")


class RouterVersionsAnswer(Answer):
    """The newest versions, newest first, and which of them this process uses."""

    in_force: int | None = Field(description="In this process; null: the shipped weights.")
    refused: int | None = Field(description="Live in the database, but not usable in this process.")
    versions: list[RouterVersion]


class LiveAnswer(Answer):
    """Which version is live now; each coordinator takes it within MOLE_ROUTER_POLL_SECONDS."""

    live: int | None = Field(description="null: the shipped weights.")


class VersionFeedback(Answer):
    """What callers said about the decisions of one version."""

    version: int | None = Field(description="null: the shipped weights.")
    rows: int
    tasks_told: int = Field(description="Rows that name the task asked for.")
    task_accuracy: Probability | None
    answers_judged: int = Field(description="Rows that tell whether the answer was right.")
    answer_accuracy: Probability | None
    mean_cost: float | None = Field(description="Of the calls of experts for the judged answers.")


class ReliabilityBin(Answer):
    """Rows of about the same confidence, and the share of them that was right."""

    confidence: Probability
    accuracy: Probability
    rows: int


class RouterFeedbackAnswer(Answer):
    """Feedback, summed up."""

    rows: int = Field(description="Judged decisions that are kept.")
    read: int = Field(description="The newest of them, which the rest of this answer is made of.")
    by_version: list[VersionFeedback]
    task_reliability: list[ReliabilityBin] = Field(description="The route's confidence, and the task.")
    answer_reliability: list[ReliabilityBin] = Field(description="The answer's confidence, and the label.")


def told(info: VersionInfo) -> RouterVersion:
    """A version as the API tells it."""
    return RouterVersion(
        version=info.id,
        state=info.state,
        created_at=_time(info.created_at),
        promoted_at=_time(info.promoted_at) if info.promoted_at is not None else None,
        parent=info.parent_id,
        metrics=info.metrics,
    )


def report(rows: Sequence[JudgedRow], total: int) -> RouterFeedbackAnswer:
    """Sums judged decisions up; what the feedback leaves open counts nowhere."""
    versions = dict.fromkeys(row.router_version for row in rows)
    return RouterFeedbackAnswer(
        rows=total,
        read=len(rows),
        by_version=[_of_version(v, [r for r in rows if r.router_version == v]) for v in versions],
        task_reliability=_bins(_pairs(rows, task_right, _task_confidence)),
        answer_reliability=_bins(_pairs(rows, answer_right, _answer_confidence)),
    )


def task_right(row: JudgedRow) -> bool | None:
    """Whether the task was the one asked for; None where that is not known, or not gating's doing.

    To abstain is wrong where the feedback names a task, but for want of a worker: which task was chosen then
    is not recorded. A right answer tells of the task as well, but a wrong one does not: by answers alone no
    task is wrong.
    """
    if row.task_fixed or row.correct_task is None or row.abstained == "expert_unavailable":
        return None
    return row.task == row.correct_task


def answer_right(row: JudgedRow) -> bool | None:
    """Whether the answer given was right; None where none was given, or the feedback does not tell."""
    given = _accepted(row)
    if given is None:
        return None
    if row.correct_task is not None and row.correct_task != row.task:
        return False
    if row.correct_label is not None:
        return bool(given["label"] == row.correct_label)
    return row.score >= RIGHT if row.score is not None else None


def _accepted(row: JudgedRow) -> dict[str, Any] | None:
    return next((step for step in row.observations if step["accepted"]), None)


def _of_version(version: int | None, rows: Sequence[JudgedRow]) -> VersionFeedback:
    tasks = [right for row in rows if (right := task_right(row)) is not None]
    answers = [(row, right) for row in rows if (right := answer_right(row)) is not None]
    costs = [sum(step["cost"] for step in row.observations if step["fault"] is None) for row, _ in answers]
    return VersionFeedback(
        version=version,
        rows=len(rows),
        tasks_told=len(tasks),
        task_accuracy=_mean(tasks),
        answers_judged=len(answers),
        answer_accuracy=_mean(right for _, right in answers),
        mean_cost=_mean(costs),
    )


def _task_confidence(row: JudgedRow) -> float | None:
    return row.task_probabilities.get(row.task) if row.task is not None else None


def _answer_confidence(row: JudgedRow) -> float | None:
    given = _accepted(row)
    return float(given["confidence"]) if given is not None else None


def _pairs(
    rows: Iterable[JudgedRow],
    right: Callable[[JudgedRow], bool | None],
    confidence: Callable[[JudgedRow], float | None],
) -> Pairs:
    found = ((confidence(row), right(row)) for row in rows)
    return [(min(max(c, 0.0), 1.0), r) for c, r in found if c is not None and r is not None]


def _bins(pairs: Pairs) -> list[ReliabilityBin]:
    """Mean confidence and share of the right in each bin that is not empty."""
    bins: list[Pairs] = [[] for _ in range(BINS)]
    for pair in pairs:
        bins[min(int(pair[0] * BINS), BINS - 1)].append(pair)
    return [
        ReliabilityBin(
            confidence=round(sum(c for c, _ in own) / len(own), 4),
            accuracy=round(sum(r for _, r in own) / len(own), 4),
            rows=len(own),
        )
        for own in bins
        if own
    ]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else None


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

"""What goes into the tables and comes out of them; known without loading the database's library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

ACTION_CHARS = 220
"""Longest name of an action; longer ones are cut."""


class DecisionRecord(NamedTuple):
    """A row of `decisions` before its caller is hashed; the members mean what the columns do."""

    request_id: str
    caller: str
    """the identity; only its hash is written"""
    created_at: float
    encoder: str | None
    description_vector: bytes | None
    text_vector: bytes | None
    language: str
    language_probability: float
    domain_probabilities: dict[str, float]
    task_probabilities: dict[str, float]
    none_probability: float
    task: str | None
    task_fixed: bool
    abstained: str | None
    action: str | None
    propensity: float
    observations: list[dict[str, Any]]
    fault: str | None
    router_version: int | None
    via: str | None = None


@dataclass(frozen=True, slots=True)
class FoundDecision:
    """What feedback needs of a decision."""

    id: int
    task: str | None


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """One word of a caller, checked; the members mean what the columns do."""

    request_id: str
    caller_hash: str
    decision_id: int
    correct_task: str | None
    correct_label: str | None
    score: float | None
    at: float

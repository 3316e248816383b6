"""What goes into and comes out of the tables of jobs; known without loading the database's library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ItemKind = Literal["done", "failed", "retry"]


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job that was taken; times are Unix times in seconds."""

    id: str
    owner: str
    """hash of its caller"""
    state: str
    total: int
    done: int
    failed: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    body_hash: str | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A finished item: its answer, or its problem document where it failed."""

    index: int
    failed: bool
    answer_json: str


@dataclass(frozen=True, slots=True)
class ClaimedItem:
    """An item that this process may work on until its lease ends."""

    job_id: str
    index: int
    owner: str
    """hash of the job's caller"""
    request_json: str
    attempts: int
    """this one included"""

    @property
    def key(self) -> tuple[str, int]:
        """Names the item."""
        return (self.job_id, self.index)


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What came of one attempt."""

    item: ClaimedItem
    kind: ItemKind
    answer_json: str
    """the answer, or the problem document"""
    retry_at: float = 0.0
    """Unix time before which the next attempt makes no sense; for `retry` only"""

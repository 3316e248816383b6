"""The tables. Times are Unix times in seconds, UTC; no column holds a caller's text or address.

The one exception are the items of a job, which hold what is to be classified until the job expires.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.storage.records import ACTION_CHARS

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only where the column is a plain INTEGER."""

HASH_CHARS = 64
REQUEST_ID_CHARS = 128
TASK_CHARS = 200
LABEL_CHARS = 200


class Base(DeclarativeBase):
    """Names constraints by rule, so that migrations on both databases can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Secret(Base):
    """Random bytes that belong to this database, such as the salt of callers' hashes."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


class RouterVersion(Base):
    """Weights of the router that were trained from feedback; the shipped ones have no row."""

    __tablename__ = "router_versions"
    __table_args__ = (
        CheckConstraint("state IN ('live', 'candidate', 'retired', 'rejected')", name="state"),
        # At most one is live, whoever promotes at the same time.
        Index(
            "uq_router_versions_live",
            "state",
            unique=True,
            sqlite_where=text("state = 'live'"),
            postgresql_where=text("state = 'live'"),
        ),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    created_at: Mapped[float] = mapped_column(Double)
    state: Mapped[str] = mapped_column(String(12))
    promoted_at: Mapped[float | None] = mapped_column(Double)
    """when it last became live"""
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("router_versions.id", ondelete="SET NULL"))
    """the version that its training started from; null: the shipped weights"""
    weights: Mapped[bytes] = mapped_column(LargeBinary)
    """safetensors"""
    meta: Mapped[dict[str, Any]] = mapped_column(JSON)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)


class Decision(Base):
    """What gating decided about one request, and what the experts said; never the text."""

    __tablename__ = "decisions"
    __table_args__ = (
        Index(None, "request_id"),
        Index(None, "created_at"),
        CheckConstraint("propensity > 0 AND propensity <= 1", name="propensity"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    request_id: Mapped[str] = mapped_column(String(REQUEST_ID_CHARS))
    """not unique: callers may name their requests, and name two alike"""
    caller: Mapped[str] = mapped_column(String(HASH_CHARS))
    created_at: Mapped[float] = mapped_column(Double)
    encoder: Mapped[str | None] = mapped_column(String(200))
    """identity of the encoder that made the vectors"""
    description_vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    """(hidden,) float16, little-endian; null where nothing was encoded"""
    text_vector: Mapped[bytes | None] = mapped_column(LargeBinary)
    language: Mapped[str] = mapped_column(String(8))
    language_probability: Mapped[float] = mapped_column(Double)
    domain_probabilities: Mapped[dict[str, float]] = mapped_column(JSON)
    task_probabilities: Mapped[dict[str, float]] = mapped_column(JSON)
    none_probability: Mapped[float] = mapped_column(Double)
    """that the request fits no task"""
    task: Mapped[str | None] = mapped_column(String(TASK_CHARS))
    """the task chosen; null where gating abstained"""
    task_fixed: Mapped[bool] = mapped_column(Boolean)
    """the caller named the task: gating did not choose it"""
    via: Mapped[str | None] = mapped_column(String(12))
    """whether the probe might answer, had to, or might not; null, as in rows of before: `auto`"""
    abstained: Mapped[str | None] = mapped_column(String(40))
    action: Mapped[str | None] = mapped_column(String(ACTION_CHARS))
    """the first action: `probe`, or `expert:` and the expert's name"""
    propensity: Mapped[float] = mapped_column(Double)
    """probability with which the policy takes all of the actions, accepting the answer included"""
    observations: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """what each probe or expert answered, in order: action, label, confidence, margin, cost, accepted"""
    fault: Mapped[str | None] = mapped_column(String(60))
    """the slug of the last fault of a worker or of the time; says nothing about quality"""
    router_version: Mapped[int | None] = mapped_column(Integer)
    """null: the shipped weights"""


class Feedback(Base):
    """What a caller says about an answer; the same caller's next word replaces it."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("caller", "request_id"),
        Index(None, "decision_id"),
        Index(None, "updated_at"),
        CheckConstraint("score IS NULL OR (score >= 0 AND score <= 1)", name="score"),
        CheckConstraint(
            "correct_task IS NOT NULL OR correct_label IS NOT NULL OR score IS NOT NULL",
            name="says_something",
        ),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    request_id: Mapped[str] = mapped_column(String(REQUEST_ID_CHARS))
    caller: Mapped[str] = mapped_column(String(HASH_CHARS))
    decision_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("decisions.id", ondelete="SET NULL"))
    """null once the decision has expired"""
    correct_task: Mapped[str | None] = mapped_column(String(TASK_CHARS))
    correct_label: Mapped[str | None] = mapped_column(String(LABEL_CHARS))
    score: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[float] = mapped_column(Double)
    updated_at: Mapped[float] = mapped_column(Double)


class Job(Base):
    """Many requests handed in at once, worked off in the background."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index(None, "state", "owner", "created_at"),
        Index(None, "owner", "created_at"),
        Index(None, "finished_at"),
        CheckConstraint(
            "state IN ('receiving', 'queued', 'running', 'succeeded', 'cancelled', 'failed')", name="state"
        ),
        CheckConstraint("done >= 0 AND failed >= 0 AND done + failed <= total", name="counters"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(HASH_CHARS))
    """the caller's hash"""
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str | None] = mapped_column(String(HASH_CHARS))
    """SHA-256 of the upload: the same key with another body is a conflict"""
    state: Mapped[str] = mapped_column(String(12))
    """`receiving` until the whole upload is stored: a crash in the middle leaves nothing to work off"""
    total: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer, default=0)
    failed: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)


class JobItem(Base):
    """One request of a job; claimed by one coordinator at a time, for as long as its lease lasts."""

    __tablename__ = "job_items"
    __table_args__ = (
        Index(None, "job_id", "state", "lease_until", "item_index"),
        Index(None, "job_id", "state", "item_index"),
        CheckConstraint("state IN ('pending', 'claimed', 'done', 'failed', 'cancelled')", name="state"),
        CheckConstraint("attempts >= 0", name="attempts"),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    item_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    """from 0, in the order of the upload"""
    state: Mapped[str] = mapped_column(String(12), default="pending")
    request_json: Mapped[str] = mapped_column(Text)
    answer_json: Mapped[str | None] = mapped_column(Text)
    """the answer, or the problem document where it failed"""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)


class ApiKey(Base):
    """A caller's key; only its hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("key_hash"), Index(None, "prefix"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    key_hash: Mapped[str] = mapped_column(String(HASH_CHARS))
    """SHA-256 of the whole key, see `app.storage.key_records`"""
    prefix: Mapped[str] = mapped_column(String(16))
    """the key's beginning, to tell keys apart"""
    scopes: Mapped[list[str]] = mapped_column(JSON)
    rate_per_minute: Mapped[int | None] = mapped_column(Integer)
    """null: no limit of its own"""
    quota_per_day: Mapped[int | None] = mapped_column(Integer)
    """texts, of batches and jobs too"""
    usage_day: Mapped[int] = mapped_column(Integer, default=0)
    """the UTC day whose texts `usage_count` counts, in days since 1970"""
    usage_count: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float | None] = mapped_column(Double)
    """null: never"""
    revoked_at: Mapped[float | None] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)

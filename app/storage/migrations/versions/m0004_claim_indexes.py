"""Indexes by which a claim of job items looks at few rows, however many there are."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ITEMS = "ix_job_items_job_id_state_lease_until_item_index"
JOBS = "ix_jobs_state_owner_created_at"


def upgrade() -> None:
    """Applies the step."""
    op.drop_index("ix_job_items_state_lease_until", "job_items")
    op.create_index(ITEMS, "job_items", ["job_id", "state", "lease_until", "item_index"])
    op.drop_index("ix_jobs_state_created_at", "jobs")
    op.create_index(JOBS, "jobs", ["state", "owner", "created_at"])


def downgrade() -> None:
    """Takes it back."""
    op.drop_index(JOBS, "jobs")
    op.create_index("ix_jobs_state_created_at", "jobs", ["state", "created_at"])
    op.drop_index(ITEMS, "job_items")
    op.create_index("ix_job_items_state_lease_until", "job_items", ["state", "lease_until"])

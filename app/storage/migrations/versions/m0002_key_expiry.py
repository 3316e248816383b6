"""Lets API keys expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the step."""
    op.add_column("api_keys", sa.Column("expires_at", sa.Double(), nullable=True))


def downgrade() -> None:
    """Takes it back."""
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("expires_at")

"""Records whether the caller let the probe answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies the step."""
    op.add_column("decisions", sa.Column("via", sa.String(length=12), nullable=True))


def downgrade() -> None:
    """Takes it back."""
    # Not by a new table in place of the old one: to drop that would unlink all feedback.
    op.drop_column("decisions", "via")

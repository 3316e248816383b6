"""Alembic's entry: runs the steps on the connection that `app.storage.migrate` hands over."""

from __future__ import annotations

from alembic import context

from app.storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
)
context.run_migrations()

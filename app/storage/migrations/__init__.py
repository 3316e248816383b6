"""Alembic's migrations, run at start; one file a step, in `versions`."""

HEAD = "0004"
"""The newest revision. A start that finds it in the database need not load Alembic."""

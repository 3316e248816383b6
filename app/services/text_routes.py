"""The endpoints that take texts: each POST is at least one of the day's quota, and is counted as traffic."""

from __future__ import annotations

TEXT_ROUTES = frozenset(
    {"/api/v1/classify", "/api/v1/route", "/api/v1/classify/batch", "/v1/chat/completions", "/v1/classify"}
)
"""Paths, which are their routes' templates as well. Batches and jobs count their other texts themselves."""
ONE_TEXT_ROUTES = frozenset({"/api/v1/classify", "/api/v1/route"})
"""Of these, whose body is a single request and nothing else."""

"""API keys for tests."""

from __future__ import annotations

from typing import Any

from app.storage.key_records import KeyRecord, key_hash


def key_record(key: str = "mole_x", **values: Any) -> KeyRecord:
    given = {
        "id": "k-1", "name": "a", "key_hash": key_hash(key), "prefix": key[:12], "scopes": ("classify",),
        "rate_per_minute": None, "quota_per_day": None, "usage_day": 0, "usage_count": 0, "created_at": 1.0,
        "expires_at": None, "revoked_at": None, "last_used_at": None,
    }  # fmt: skip
    return KeyRecord(**(given | values))

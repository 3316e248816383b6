"""What an API key is, known without loading the database's library."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final, Literal, get_args

Scope = Literal["classify", "jobs", "feedback", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
DEFAULT_SCOPES: Final[tuple[Scope, ...]] = ("classify", "jobs", "feedback")
ADMIN: Final = "admin"
"""Holds every other scope, and sees all callers' jobs."""

MARK = "mole_"
"""In front of every key, so that a scanner for leaked secrets knows one."""
SECRET_BYTES = 32
PREFIX_CHARS = 12
"""What is kept of a key in clear, to tell keys apart: the mark and 42 of its 256 bits."""
LONGEST_TOKEN = 256
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A row of `api_keys`; the members mean what the columns do."""

    id: str
    name: str
    key_hash: str
    prefix: str
    scopes: tuple[str, ...]
    rate_per_minute: int | None
    quota_per_day: int | None
    usage_day: int
    usage_count: int
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None

    def usable(self, now: float) -> bool:
        """Whether it is neither revoked nor expired; `now` is a Unix time in seconds."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def may(self, scope: str) -> bool:
        """Whether it holds the scope."""
        return scope in self.scopes or ADMIN in self.scopes

    def used_on(self, day: int) -> int:
        """Texts that are counted for a UTC day."""
        return self.usage_count if self.usage_day == day else 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has to add to a key's row."""

    texts: int
    day: int
    at: float


def new_key() -> str:
    """A key that nobody guesses: 256 random bits."""
    return MARK + secrets.token_urlsafe(SECRET_BYTES)


def key_hash(key: str) -> str:
    """What is kept of a key: its SHA-256 in hexadecimal.

    A slow hash (Argon2, bcrypt) guards secrets that people choose, which can be guessed one by one; there is
    nothing to guess in 256 random bits, and a salt would only guard against tables of such guesses.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def day_of(now: float) -> int:
    """The UTC day of a Unix time, in days since 1970."""
    return int(now // DAY_S)

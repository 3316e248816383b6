"""Who asks, where no key says it."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from functools import lru_cache

IPV6_PREFIX = 64
"""One subscriber has at least this much of IPv6; the rest of the address changes at will."""
OWNER_CHARS = 16

_key = secrets.token_bytes(16)
"""What a worker is told must not tell a caller's address; the database's, as soon as it was read."""


def name_by(salt: bytes) -> None:
    """From now on callers have the same names in every process that uses the database of this salt."""
    global _key
    _key = hashlib.sha256(b"names for workers\0" + salt).digest()
    opaque.cache_clear()


@lru_cache(maxsize=4096)
def opaque(identity: str) -> str:
    """A name for a caller that says nothing of it, for the workers' queues."""
    return hashlib.blake2s(identity.encode(), key=_key, digest_size=8).hexdigest()


@lru_cache(maxsize=4096)
def address_identity(host: str | None) -> str:
    """The identity of a caller without a key: its address, of IPv6 the network."""
    if host is None:
        return "address:unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"address:{host}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address:{address.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((address, IPV6_PREFIX), strict=False)}"
    return f"address:{address}"


def key_identity(key_id: str) -> str:
    """The identity of whoever holds a key."""
    return f"key:{key_id}"


def owner_name(caller_hash: str) -> str:
    """What administrators are shown of a caller; the list of keys has it, too."""
    return caller_hash[:OWNER_CHARS]


def job_identity(owner: str) -> str:
    """The identity that the items of a caller's jobs run under; `owner` is the caller's hash."""
    return f"job:{owner}"

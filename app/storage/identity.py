"""Who asks, where no key says it."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from functools import lru_cache

IPV6_PREFIX = 64
"""One subscriber has at least this much of IPv6; the rest of the address changes at will."""

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


def job_identity(owner: str) -> str:
    """The identity that the items of a caller's jobs run under; `owner` is the caller's hash."""
    return f"job:{owner}"

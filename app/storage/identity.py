"""Who asks, where no key says it."""

from __future__ import annotations

import ipaddress

IPV6_PREFIX = 64
"""One subscriber has at least this much of IPv6; the rest of the address changes at will."""


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

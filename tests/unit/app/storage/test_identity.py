from __future__ import annotations

import pytest

from app.storage.identity import address_identity


@pytest.mark.parametrize(
    ("host", "identity"),
    [
        ("192.0.2.1", "address:192.0.2.1"),
        ("2001:db8::1", "address:2001:db8::/64"),
        ("2001:db8::ffff:2", "address:2001:db8::/64"),
        ("2001:db8:0:1::1", "address:2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "address:192.0.2.1"),
        ("a-socket", "address:a-socket"),
        (None, "address:unknown"),
    ],
)
def test_an_address_is_an_identity_and_of_ipv6_the_network_is(host: str | None, identity: str) -> None:
    assert address_identity(host) == identity

from __future__ import annotations

import time
from uuid import UUID

import pytest

from app.asgi.exchange import IDS_AT_ONCE, open_exchange


def request_id(given: bytes | None = None) -> str:
    headers = [(b"x-request-id", given)] if given is not None else []
    return open_exchange({"type": "http", "path": "/", "headers": headers}).request_id


def test_ids_are_uuids_that_begin_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_999_999)
    ids = [UUID(request_id()) for _ in range(3 * IDS_AT_ONCE)]
    assert len(set(ids)) == len(ids)
    assert {(found.version, found.variant) for found in ids} == {(7, "specified in RFC 4122")}
    assert {found.int >> 80 for found in ids} == {1_700_000_000_123}


@pytest.mark.parametrize("given", [b"mine", b"a.b:c-1_2", b"x" * 128])
def test_a_sane_id_of_the_callers_is_taken(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"two words", b"a\nb", b"\xe4"])
def test_another_is_replaced(given: bytes) -> None:
    assert UUID(request_id(given)).version == 7

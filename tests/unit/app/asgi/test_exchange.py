from __future__ import annotations

import time
from uuid import UUID

import pytest

from app.asgi.exchange import IDS_AT_ONCE, open_exchange


def request_id(given: bytes | None = None) -> str:
    headers = [(b"x-request-id", given)] if given is not None else []
    return open_exchange({"type": "http", "path": "/", "headers": headers}).request_id


def test_ids_are_uuids_that_begin_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [UUID(request_id()) for _ in range(3 * IDS_AT_ONCE)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == len(ids)
    assert {(found.version, found.variant) for found in ids} == {(7, "specified in RFC 4122")}
    assert all(before <= found.int >> 80 <= after for found in ids)


def test_a_later_id_stands_behind_an_earlier_one() -> None:
    earlier = request_id()
    time.sleep(0.002)
    assert request_id() > earlier


@pytest.mark.parametrize("given", [b"mine", b"a.b:c-1_2", b"x" * 128])
def test_a_sane_id_of_the_callers_is_taken(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"two words", b"a\nb", b"\xe4"])
def test_another_is_replaced(given: bytes) -> None:
    assert UUID(request_id(given)).version == 7

from __future__ import annotations

from contextlib import ExitStack

import pytest

from app.services.admission import Admission
from moe_router.errors import OverloadedError, TooManyRequestsError


def test_a_caller_has_its_own_limit() -> None:
    admission = Admission(10, 2)
    with admission.request("a"), admission.request("a"):
        with pytest.raises(TooManyRequestsError, match="2 of your requests"), admission.request("a"):
            raise AssertionError
        with admission.request("b"):
            assert admission.requests == 3
    assert admission.requests == 0
    with admission.request("a"):
        pass


def test_a_full_house_still_lets_in_who_is_below_its_share() -> None:
    admission = Admission(4, 4)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(admission.request("flood"))
        for _ in range(2):
            stack.enter_context(admission.request("other flood"))
        with pytest.raises(OverloadedError), admission.request("other flood"):
            raise AssertionError
        stack.enter_context(admission.request("quiet"))


def test_overbooking_has_an_end() -> None:
    admission = Admission(4, 1)
    with ExitStack() as stack:
        for index in range(4):
            stack.enter_context(admission.request(str(index)))
        with pytest.raises(OverloadedError), admission.request("one more"):
            raise AssertionError


def test_amounts_are_counted_as_so_many_requests() -> None:
    admission = Admission(10, 6, of="bytes")
    admission.enter("a", 4)
    with pytest.raises(TooManyRequestsError, match="4 of your bytes"):
        admission.enter("a", 3)
    admission.enter("b", 6)
    with pytest.raises(OverloadedError, match="10 bytes"):
        admission.enter("a", 2)
    admission.enter("c", 3)
    admission.leave("b", 6)
    admission.leave("a", 4)
    admission.leave("c", 3)
    assert admission.requests == 0

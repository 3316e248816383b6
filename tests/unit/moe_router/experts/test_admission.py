from __future__ import annotations

import pytest

from moe_router.errors import OverloadedError
from moe_router.experts.admission import JOBS_PER_PLACE, Admission, Place


async def test_who_is_refused_all_the_same_costs_nobody_a_place() -> None:
    admission: Admission[str] = Admission(512)
    others = [admission.enter(f"caller {i % 20}") for i in range(400)]
    long = admission.enter("newcomer")
    with pytest.raises(OverloadedError):
        admission.grow(long, 19 * JOBS_PER_PLACE)
    assert admission.held == 401
    assert long.weight == 1
    assert not any(place.settled for place in others)


async def test_who_may_not_enter_costs_nobody_a_place() -> None:
    admission: Admission[str] = Admission(2)
    others = [admission.enter("a"), admission.enter("b")]
    for place in others:
        with pytest.raises(OverloadedError):
            admission.enter("c")
        assert (admission.held, place.settled) == (2, False)


async def test_as_many_go_as_must_the_newest_of_who_then_holds_most() -> None:
    admission: Admission[str] = Admission(16)  # 12 of them for requests of many jobs
    a, b = ([admission.enter(caller) for _ in range(count)] for caller, count in (("a", 5), ("b", 6)))
    begun = a[-1]
    begun.begun = True
    long: Place[str] = admission.enter("c")
    admission.grow(long, 3 * JOBS_PER_PLACE)
    assert (admission.held, long.weight) == (12, 3)
    assert [place for place in a if place.settled] == [a[-2]]
    assert [place for place in b if place.settled] == [b[-1]]


async def test_who_holds_most_may_have_nothing_to_give_up() -> None:
    admission: Admission[str] = Admission(8)
    a, b = ([admission.enter(caller) for _ in range(count)] for caller, count in (("a", 5), ("b", 3)))
    for place in a:
        place.begun = True
    admission.enter("c")
    assert admission.held == 8
    assert [place for place in (*a, *b) if place.settled] == [b[-1]]

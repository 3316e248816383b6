"""Who judges: by a hash that no run turns, never a single caller among several, never what has taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moe_router.training.feedback.held_out import HELD_OUT, JUDGES, hold_out
from moe_router.training.feedback.replay import Replay
from tests.unit.moe_router.training.feedback_world import replay, row


def rows(callers: int, each: int = 10, decided: float = 0.0) -> Replay:
    made = replay([row(caller=f"c-{c}") for c in range(callers) for _ in range(each)])
    return replace(made, decided_at=np.full(len(made), decided))


def joined(*parts: Replay) -> Replay:
    """One after another, so that a row's place tells whose it is; every request has a name of its own."""
    callers = tuple(c for part in parts for c in part.caller)
    decided = np.concatenate([part.decided_at for part in parts])
    return replace(replay([row(caller=c) for c in callers]), decided_at=decided)


def test_whole_callers_where_there_are_several():
    found = hold_out(rows(40))
    assert found.way == "caller"
    teachers, judges = ({rows(40).caller[i] for i in part} for part in (found.taught, found.held))
    assert not teachers & judges
    assert len(judges) / 40 == pytest.approx(HELD_OUT, abs=0.1)


@pytest.mark.parametrize("callers", [1, 2, 3, 4, 5, 6, 7])
def test_requests_of_every_caller_where_few_would_judge(callers):
    """With four to seven callers one of them, a quarter, once judged alone."""
    given = rows(callers, 80)
    found = hold_out(given)
    assert found.way == "request"
    judging = [given.caller[i] for i in found.held]
    assert set(judging) == set(given.caller)
    assert len(judging) / len(given) == pytest.approx(HELD_OUT, abs=0.1)


def test_never_fewer_judges_than_three_where_whole_callers_judge():
    for callers in range(1, 60):
        found = hold_out(rows(callers, 2))
        judges = {rows(callers, 2).caller[i] for i in found.held}
        assert found.way == "request" or JUDGES <= len(judges) <= callers / 2


def test_what_judges_stays_so_whatever_comes_to_it():
    first = rows(40, 3)
    later = joined(first, rows(60, 2, decided=9.0))
    before, after = hold_out(first), hold_out(later, [(5.0, "caller")])
    assert set(before.held) <= set(after.held)
    assert set(before.taught) <= set(after.taught)


@pytest.mark.parametrize(("few", "many"), [(5, 40), (40, 5)])
def test_what_taught_never_judges_though_callers_come_or_go(few, many):
    """The way changes; what the first run saw stays on the side where it put it."""
    early = rows(few, 8)
    first = hold_out(early)
    both = joined(early, rows(many, 8, decided=9.0))
    kept = list(range(len(both))) if many > few else [i for i in range(len(both)) if both.caller[i] < "c-13"]
    now = hold_out(both.take(kept), [(5.0, first.way)])
    assert now.way != first.way
    known = {i for i in kept if i < len(early)}
    assert {kept[i] for i in now.held} & known == set(first.held) & known
    assert {kept[i] for i in now.taught} & known == set(first.taught) & known


def test_what_a_version_of_before_may_have_learned_never_judges():
    given = joined(rows(40, 3), rows(40, 3, decided=9.0))
    found = hold_out(given, [(5.0, None)])
    assert found.held
    assert min(found.held) >= 120


def test_a_callers_key_decides_where_its_requests_fall():
    """Two callers name their requests alike, and other ones of them judge."""
    names = [f"r-{i}" for i in range(200)]
    given = [replace(replay([row(caller=c)] * 200), request_id=tuple(names)) for c in ("a", "b")]
    assert hold_out(given[0]).held != hold_out(given[1]).held

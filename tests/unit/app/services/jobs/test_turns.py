"""Whose item is next, of callers with quick and with slow ones."""

from __future__ import annotations

from collections import Counter

from app.services.jobs.turns import Turns
from app.storage.job_records import ClaimedItem


def items(owner: str, count: int, job_id: str | None = None) -> list[ClaimedItem]:
    return [ClaimedItem(job_id or owner, i, owner, "{}", 1) for i in range(count)]


def test_who_has_fewest_under_way_is_next_and_of_equals_who_waits_longest() -> None:
    turns = Turns()
    turns.add(items("a", 4) + items("b", 2) + items("c", 1))
    under_way = Counter({"b": 1})
    served = []
    while turns:
        item = turns.next(under_way)
        under_way[item.owner] += 1
        served.append((item.owner, item.index))
    assert served == [("a", 0), ("c", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)]


def test_an_owner_without_items_is_overlooked_only_while_it_would_be_next() -> None:
    turns = Turns()
    turns.add(items("a", 2) + items("b", 1))
    turns.next({"a": 3})
    assert turns.waiting == {"a": 2}
    assert turns.overlook({"a": 3, "b": 2})
    assert not turns.overlook({"a": 3, "b": 3})
    turns.add([])  # it was looked for more, and b has none
    assert not turns.overlook({"a": 3})


def test_a_cancelled_jobs_items_wait_no_more() -> None:
    turns = Turns()
    turns.add(items("a", 2, "j") + items("a", 1, "k") + items("b", 2, "l"))
    turns.drop("j")
    turns.drop("l")
    assert turns.waiting == {"a": 1}
    assert turns.next({}).job_id == "k"
    assert not turns

from __future__ import annotations

from moe_router.tally import BOUNDS, SizeTally


def test_sizes_fall_into_classes() -> None:
    tally = SizeTally()
    for size in (1, 2, 3, 4, 5, 1000):
        tally.note(size)
    assert tally.total == 1015
    assert dict(tally.buckets()) == {
        "1": 1, "2": 2, "4": 4, "8": 5, "16": 5, "32": 5, "64": 5, "128": 5, "+Inf": 6,
    }  # fmt: skip
    assert len(tally.buckets()) == len(BOUNDS) + 1

from __future__ import annotations

import weakref

from moe_router.experts.frames import without_frames


class Held:
    """What a frame holds."""


def fail(alive: list[weakref.ref[Held]]) -> None:
    held = Held()
    alive.append(weakref.ref(held))
    raise ValueError("inner")


def test_an_error_keeps_its_kind_and_words_and_nothing_else() -> None:
    alive: list[weakref.ref[Held]] = []
    try:
        try:
            fail(alive)
        except ValueError as inner:
            fail_again = inner  # as a frame that the outer error's trace leads to may
            raise RuntimeError("outer") from inner
    except RuntimeError as outer:
        kept = without_frames(outer)
    del fail_again
    assert (type(kept), str(kept)) == (RuntimeError, "outer")
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert alive[0]() is None


def test_errors_in_a_ring_are_all_freed_of_their_frames() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    assert without_frames(first).__context__ is None
    assert second.__context__ is None

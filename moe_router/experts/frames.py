"""Errors without what they hold: a failed pass's frames keep its tensors alive as long as its error lives."""

from __future__ import annotations

from typing import TypeVar

ErrorT = TypeVar("ErrorT", bound=BaseException)


def without_frames(error: ErrorT) -> ErrorT:
    """The same error without its trace, its cause and its context; they lose theirs, too.

    What is to be known of them must have been logged before.
    """
    left: list[BaseException] = [error]
    while left:
        one = left.pop()
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
        # Each by itself: a frame of one may hold another, and only a full collection finds such a ring.
        one.__traceback__ = one.__cause__ = one.__context__ = None
    return error

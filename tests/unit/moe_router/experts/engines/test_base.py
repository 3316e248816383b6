from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_router.errors import NoWorkerError
from moe_router.experts.engines.base import NotANumberError, OutOfMemoryError, infer_halving


class SmallEngine:
    """Holds so many jobs at a time; some jobs fail whatever the room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def infer(self, jobs: Sequence[Any]) -> list[Any]:
        self.sizes.append(len(jobs))
        if len(jobs) > self.room:
            raise OutOfMemoryError("too many")
        if "bad" in jobs:
            raise ValueError("bad job")
        return [np.array([float(len(job))]) for job in jobs]


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    engine: Any = SmallEngine(room=2)
    found: list[Any] = infer_halving(engine, ["a", "bb", "ccc", "dddd", "eeeee"])  # type: ignore[list-item]
    assert [values[0] for values in found] == [1, 2, 3, 4, 5]
    assert max(engine.sizes[1:]) < 5


def test_a_job_that_fails_takes_no_other_down() -> None:
    engine: Any = SmallEngine(room=9)
    found: list[Any] = infer_halving(engine, ["a", "bad", "ccc"])  # type: ignore[list-item]
    assert found[0][0] == 1
    assert isinstance(found[1], ValueError)
    assert found[2][0] == 3


def test_a_job_that_never_fits_gets_the_error() -> None:
    engine: Any = SmallEngine(room=0)
    [found] = infer_halving(engine, ["a"])  # type: ignore[list-item]
    assert isinstance(found, OutOfMemoryError)


def test_want_of_memory_is_told_as_of_one_expert_and_nan_as_a_bad_answer() -> None:
    """Of the one the coordinator never leaves the worker, of the other if it is repeated."""
    assert (OutOfMemoryError("too many").status, OutOfMemoryError.slug) == (503, NoWorkerError.slug)
    assert (NotANumberError().status, NotANumberError.slug) == (502, "bad-worker-answer")

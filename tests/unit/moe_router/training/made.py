"""Random episodes of a small world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_router.training.episodes import Episodes

HIDDEN = 4


def episodes(
    count: int, rng: np.random.Generator, *, tasks: int = 3, arms: int = 3, **changed: Any
) -> Episodes:
    """Everything drawn evenly; all arms are offered."""

    def share(*shape: int) -> Any:
        return rng.random(shape).astype(np.float32)

    made = Episodes(
        description=share(count, HIDDEN), text=share(count, HIDDEN),
        task_probability=share(count, tasks), none_probability=share(count),
        domain_probability=share(count, tasks), language_probability=share(count),
        undetermined=rng.random(count) < 0.3,
        target=rng.integers(-1, tasks, count), offered=np.ones((count, arms), bool),
        price=np.tile(np.arange(arms, dtype=np.float32) / 10, (count, 1)), skill=share(count, arms),
        confidence=share(count, arms), margin=share(count, arms), label=rng.integers(0, 3, (count, arms)),
        correct=rng.random((count, arms)) < 0.5, pooled=np.zeros((count, arms), bool),
        drawn=np.zeros(count, bool),
    )  # fmt: skip
    return replace(made, **changed)

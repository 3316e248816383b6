from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moe_router.gating.weights import Floats
from moe_router.training.embedded import Embedded
from moe_router.training.feedback.memory import EPISODES, remember
from moe_router.training.phrasings import load_phrasings


class Counting:
    """Makes a vector of a text's length."""

    hidden = 2

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> Floats:
        self.seen += texts
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_training_requests_are_kept_and_validation_requests_guard():
    encoder = Counting()
    kept = remember(None, Embedded(encoder, lambda *_: None))
    assert len(kept.description) == sum(p.split == "train" for p in load_phrasings())
    assert len(kept.requests) == EPISODES
    assert {r.description.split for r in kept.requests if r.description} == {"train"}
    assert len(kept.guard) == len(kept.guard_target)
    assert "none" in kept.guard_target
    assert not any(target.startswith("oos/") for target in kept.guard_target)
    assert len(encoder.seen) == len(set(encoder.seen))  # nothing is encoded twice

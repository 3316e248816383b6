"""Fitting the n-grams of descriptions and weighing them against the heads."""

from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.heads import Distribution
from moe_router.gating.wording import Wording
from moe_router.training.phrasings import load_phrasings
from moe_router.training.wording import fit_wording, weigh

ENGLISH = [p for p in load_phrasings() if p.language == "en"]
TRAIN = [p for p in ENGLISH if p.split == "train"]
HELD = [p for p in ENGLISH if p.split == "validation" and not p.target.startswith("generic/")]


@pytest.fixture(scope="module")
def fitted():
    return fit_wording(TRAIN, 0)


def even(names: tuple[str, ...]) -> Distribution:
    share = 1.0 / (len(names) + 1)
    return Distribution(names, np.full(len(names), share, np.float32), share, 0.0)


def test_it_tells_requests_apart_that_it_has_not_seen(fitted):
    wording = Wording(fitted)
    names = tuple(name for name in wording.classes if name != "none")
    asked = [p for p in HELD if p.target in names]
    best = [names[int(wording.opinion(p.text, names)[:-1].argmax())] for p in asked]
    assert np.mean([b == p.target for b, p in zip(best, asked, strict=True)]) > 0.6


def test_the_same_requests_give_the_same_weights(fitted):
    again = fit_wording(TRAIN, 0)
    assert np.array_equal(again.arrays["weight"], fitted.arrays["weight"])
    assert "generic/sentiment" not in again.meta["classes"]


def test_beside_heads_that_know_nothing_the_words_decide(fitted):
    names = tuple(name for name in fitted.meta["classes"] if name != "none")
    chosen = weigh(fitted, [p.text for p in HELD], [even(names)] * len(HELD), [p.target for p in HELD])
    assert chosen.meta["weight"] > 0.5


def test_beside_heads_that_know_all_the_words_are_not_needed(fitted):
    names = tuple(name for name in fitted.meta["classes"] if name != "none")

    def sure(target: str) -> Distribution:
        known = np.array([0.999 if name == target else 1e-6 for name in names], np.float32)
        return Distribution(names, known, float(1 - known.sum()), 0.0)

    found = [sure(p.target) for p in HELD]
    chosen = weigh(fitted, [p.text for p in HELD], found, [p.target for p in HELD])
    assert chosen.meta["weight"] < 0.5

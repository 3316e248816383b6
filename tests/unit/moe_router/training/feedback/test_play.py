"""Greedy play on episodes whose every outcome is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from moe_router.gating.qnetwork import FEATURES
from moe_router.gating.weights import Floats
from moe_router.training.feedback.play import play
from tests.unit.moe_router.training.made import episodes


class Valued:
    """A network by a formula over phi."""

    def __init__(self, formula: Any) -> None:
        self.formula = formula

    def state(self, *_vectors: Floats) -> Floats:
        return np.zeros(1, np.float32)

    def values(self, _state: Floats, actions: Floats) -> Floats:
        return np.array([self.formula(dict(zip(FEATURES, row, strict=True))) for row in actions], np.float32)


def known(count: int = 50) -> Any:
    """The probe is right in half of the requests, the expert always, and costs 0.1."""
    rng = np.random.default_rng(0)
    correct = np.zeros((count, 3), bool)
    correct[: count // 2, 0], correct[:, 1] = True, True
    confidence = np.where(correct, 0.9, 0.3).astype(np.float32)
    return episodes(
        count, rng, target=rng.integers(0, 3, count), correct=correct, confidence=confidence,
        offered=np.tile([True, True, False], (count, 1)),
        price=np.tile(np.array([0.0, 0.1, 0.0], np.float32), (count, 1)),
    )  # fmt: skip


def first_probe(phi: dict[str, float]) -> float:
    return 2.0 if phi["probe"] and not phi["accept"] else 0.0


@pytest.mark.parametrize(
    ("formula", "worth"),
    [
        (lambda phi: first_probe(phi) + phi["accept"], 0.5),  # the probe's answer, whatever it is
        (lambda phi: phi["expert"] + phi["accept"], 1.0 - 0.1),  # the expert at once
        # The probe, and the expert where the probe was unsure.
        (lambda phi: first_probe(phi) + (phi["confidence"] if phi["accept"] else 0.5), 1.0 - 0.05),
        # Asks on although the answer was sure: pays for nothing.
        (lambda phi: first_probe(phi) + (phi["accept"] and phi["expert"]) + 0.5 * phi["expert"], 1.0 - 0.1),
    ],
)
def test_the_mean_of_what_the_choices_bring(formula, worth):
    assert play(Valued(formula), known()) == pytest.approx(worth, abs=1e-6)


def test_without_a_task_there_is_nothing_to_play():
    assert math.isnan(play(Valued(first_probe), episodes(3, np.random.default_rng(0), target=np.full(3, -1))))

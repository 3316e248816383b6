"""The shipped curve on a candidate: as it is for an equal one, higher for one that is too sure."""

from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.abstention import threshold_for
from moe_router.training.feedback.judging import Guarded
from moe_router.training.feedback.thresholds import carried

CURVE = [
    {"threshold": 0.4, "coverage": 0.9, "risk": 0.12},
    {"threshold": 0.6, "coverage": 0.8, "risk": 0.045},
    {"threshold": 0.8, "coverage": 0.6, "risk": 0.01},
]


def router(confidence: np.ndarray, right: np.ndarray) -> Guarded:
    return Guarded(0.9, 0.9, 0.7, confidence.astype(np.float32), right, np.ones(len(right), np.bool_))


def requests(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The surer, the righter."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.2, 1.0, count)
    return confidence, rng.random(count) < confidence


@pytest.mark.parametrize("count", [0, 1, 3, 40, 2000])
@pytest.mark.parametrize("kind", ["mixed", "all right", "all wrong"])
def test_a_router_that_answers_alike_keeps_the_shipped_curve_whatever_guards(count, kind):
    confidence, right = requests(count)
    right = right if kind == "mixed" else np.full(count, kind == "all right")
    same = router(confidence, right)
    assert carried(CURVE, same, router(confidence, right)) == CURVE


def test_one_that_is_surer_without_being_righter_gets_higher_thresholds_and_no_more_risk():
    confidence, right = requests(2000)
    shipped, candidate = router(confidence, right), router(confidence**0.3, right)
    made = carried(CURVE, shipped, candidate)
    assert threshold_for({"coverage_risk": made}, 0.05) > 0.8
    for before, after in zip(CURVE, made, strict=True):
        assert after["threshold"] > before["threshold"]
        assert candidate.risk(after["threshold"]) <= shipped.risk(before["threshold"])
        assert after["risk"] == before["risk"]
        assert after["coverage"] == pytest.approx(before["coverage"], abs=0.03)


def test_one_that_is_less_sure_keeps_the_thresholds_and_answers_less():
    confidence, right = requests(2000)
    made = carried(CURVE, router(confidence, right), router(confidence**2, right))
    assert [p["threshold"] for p in made] == [0.4, 0.6, 0.8]
    assert all(a["coverage"] < b["coverage"] for a, b in zip(made, CURVE, strict=True))


def test_one_that_is_righter_keeps_the_thresholds():
    confidence, right = requests(2000)
    made = carried(CURVE, router(confidence, right), router(confidence, np.ones(2000, np.bool_)))
    assert made == CURVE


def test_one_whose_surest_answer_is_wrong_answers_nothing():
    confidence = np.array([0.5, 0.7, 0.97])
    candidate = router(confidence, confidence < 0.9)
    made = carried(CURVE, router(confidence, np.ones(3, np.bool_)), candidate)
    assert {(p["threshold"], p["coverage"]) for p in made} == {(0.9701, 0.0)}


def test_one_that_is_certain_of_what_is_wrong_answers_only_what_is_certain():
    confidence = np.array([0.5, 0.7, 1.0])
    candidate = router(confidence, confidence < 0.9)
    made = carried(CURVE, router(confidence, np.ones(3, np.bool_)), candidate)
    assert {p["threshold"] for p in made} == {1.0}


def test_a_step_is_as_fine_as_the_wrong_answers_lie():
    """One more wrong answer costs no more right ones than lie beside it."""
    confidence = np.array([0.62, 0.65, 0.71, 0.93])
    shipped = router(confidence, np.ones(4, np.bool_))
    made = carried(CURVE[1:2], shipped, router(confidence, np.array([True, False, True, True])))
    assert made[0]["threshold"] == pytest.approx(0.71, abs=2e-4)
    assert made[0]["coverage"] == 0.4

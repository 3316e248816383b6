from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.abstention import (
    expert_unavailable,
    judge,
    nearest,
    threshold_for,
    unknown_language,
)
from moe_router.gating.heads import Distribution

CURVE = [
    {"threshold": 0.2, "coverage": 1.0, "risk": 0.3},
    {"threshold": 0.5, "coverage": 0.8, "risk": 0.05},
    {"threshold": 0.9, "coverage": 0.4, "risk": 0.01},
]


def tasks(none: float, *probabilities: float) -> Distribution:
    names = tuple(f"a/{letter}" for letter in "vwxyz"[: len(probabilities)])
    return Distribution(names, np.array(probabilities, np.float32), none, 0.0)


@pytest.mark.parametrize(
    ("risk", "threshold"), [(0.3, 0.2), (0.29, 0.5), (0.05, 0.5), (0.02, 0.9), (0.0, 0.9), (1.0, 0.2)]
)
def test_the_lowest_threshold_that_keeps_the_risk(risk: float, threshold: float) -> None:
    assert threshold_for({"coverage_risk": CURVE}, risk) == threshold
    assert threshold_for({"coverage_risk": CURVE[::-1]}, risk) == threshold


RISKS = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@settings(deadline=None)
@given(risks=RISKS, target=st.floats(0, 1))
def test_no_threshold_takes_more_risk_than_another_would_have_to(risks: list[float], target: float) -> None:
    curve = [{"threshold": i / len(risks), "risk": risk} for i, risk in enumerate(risks)]
    chosen = threshold_for({"coverage_risk": curve}, target)
    row = next(row for row in curve if row["threshold"] == chosen)
    assert row["risk"] <= target or min(risks) > target


@pytest.mark.parametrize("curve", [None, [], [{}], [{"risk": "low", "threshold": 1}], 3, [3]])
def test_weights_without_a_curve_are_refused(curve: object) -> None:
    with pytest.raises(ModelAssetError, match="coverage-risk curve"):
        threshold_for({"coverage_risk": curve}, 0.05)
    with pytest.raises(ModelAssetError, match="coverage-risk curve"):
        threshold_for({}, 0.05)


def test_a_sure_request_is_answered() -> None:
    assert judge(tasks(0.0, 0.25, 0.75), "a/w", 0.75) is None


def test_what_fits_none_is_out_of_scope() -> None:
    found = judge(tasks(0.8, 0.05, 0.15), "a/w", 0.5)
    assert found is not None
    assert found.reason == "out_of_scope"
    assert "0.80" in found.detail
    assert found.nearest_tasks == ["a/w", "a/v"]


def test_what_fits_several_is_of_low_confidence() -> None:
    found = judge(tasks(0.1, 0.45, 0.45), "a/v", 0.5)
    assert found is not None
    assert found.reason == "low_confidence"
    assert "0.45, below the limit of 0.50" in found.detail


def test_three_tasks_are_named_best_first() -> None:
    assert nearest(tasks(0.0, 0.1, 0.3, 0.05, 0.35, 0.2)) == ["a/y", "a/w", "a/z"]


def test_the_other_reasons_say_what_to_do() -> None:
    assert unknown_language(("a/x",)).model_dump()["reason"] == "unknown_language"
    assert "options.language" in unknown_language(()).detail
    assert expert_unavailable("a/x").nearest_tasks == ["a/x"]

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from moe_router.training.metrics import auroc, expected_calibration_error, macro_f1, reliability, risk_at


def test_a_calibrated_classifier_has_no_error():
    confidence = np.full(1000, 0.75)
    correct = np.arange(1000) % 4 != 0
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.0)


def test_an_overconfident_one_has_the_gap():
    assert expected_calibration_error(np.ones(10), np.arange(10) < 6) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_auroc_agrees_with_scikit_learn(pairs):
    score = np.array([float(s) for s, _ in pairs])
    positive = np.array([p for _, p in pairs])
    ours = auroc(score, positive)
    if positive.all() or not positive.any():
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(roc_auc_score(positive, score))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40))
def test_macro_f1_agrees_with_scikit_learn(pairs):
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    labels = sorted(set(gold))
    expected = f1_score(gold, predicted, labels=labels, average="macro", zero_division=0)
    assert macro_f1(gold, predicted) == pytest.approx(expected)


def test_reliability_covers_everything_once():
    rows = reliability(np.array([0.05, 0.95, 1.0]), np.array([False, True, False]))
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-3)
    assert rows[-1]["accuracy"] == 0.5


def test_the_risk_at_a_coverage_is_that_of_the_surest():
    confidence, correct = np.array([0.2, 0.9, 0.4, 0.6]), np.array([False, True, True, False])
    assert [risk_at(share, confidence, correct) for share in (1.0, 0.75, 0.5, 0.25)] == [
        0.5, pytest.approx(1 / 3), 0.5, 0.0
    ]  # fmt: skip
    assert risk_at(0.01, confidence, correct) == 0.0  # the surest one is always among them

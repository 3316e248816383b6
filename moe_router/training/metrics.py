"""Measures of a classifier with confidences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats64 = NDArray[np.float64]


def expected_calibration_error(confidence: Floats64, correct: Bools, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins (Naeini et al., 2015), in [0, 1]."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = 0.0
    for chosen in (index == b for b in range(bins)):
        if chosen.any():
            gap += chosen.mean() * abs(confidence[chosen].mean() - correct[chosen].mean())
    return float(gap)


def auroc(score: Floats64, positive: Bools) -> float:
    """Probability that a positive scores above a negative, ties counting half; nan without either."""
    if positive.all() or not positive.any():
        return float("nan")
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    for value in np.unique(score):  # ties share their mean rank
        tied = score == value
        ranks[tied] = ranks[tied].mean()
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def reliability(confidence: Floats64, correct: Bools, bins: int = 10) -> list[dict[str, float]]:
    """Mean confidence, accuracy and share of each bin that is not empty."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": round(float(confidence[index == b].mean()), 4),
            "accuracy": round(float(correct[index == b].mean()), 4),
            "share": round(float((index == b).mean()), 4),
        }
        for b in range(bins)
        if (index == b).any()
    ]


def risk_at(coverage: float, confidence: Floats64, correct: Bools) -> float:
    """Share of wrong ones among the surest, of which there are `coverage` times as many as of all."""
    surest = np.argsort(-confidence, kind="stable")[: max(1, round(coverage * len(confidence)))]
    return float(1 - correct[surest].mean())


def macro_f1(gold: list[str], predicted: list[str]) -> float:
    """Mean F1 of the labels that occur in `gold`, in [0, 1]."""
    pairs = list(zip(gold, predicted, strict=True))
    scores = []
    for label in sorted(set(gold)):
        hits = sum(g == label and p == label for g, p in pairs)
        total = sum(g == label for g, _ in pairs) + sum(p == label for _, p in pairs)
        scores.append(2 * hits / total)
    return float(np.mean(scores))

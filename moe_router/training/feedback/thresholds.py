"""Carries the shipped router's coverage-risk curve over to a candidate.

What risk a threshold means was measured for the shipped router, on requests that are drawn as they are
served. The guard's are drawn otherwise, and only for the tasks of the registry: a curve measured on them
promises another risk at the same threshold, also of a router that has learned nothing. So the guard only
compares. At each point of the shipped curve the candidate gets the lowest threshold, from the point's own
upwards, at which no larger share of what it answers of the guard is wrong than of what the shipped router
answers at the point's. It is always the shipped curve that is carried over, never a version's, so that
nothing adds up.

No threshold is lowered. To know a risk to within a tenth of itself, nine times in ten, takes 164 wrong
answers ((1.28 / 0.1)^2, since their number spreads like its root); above 0.60, where 5 % of the answers may
be wrong, the guard has 151 with all tasks of the demo and 4 with one of them, and between 0.56 and 0.60 five
and none. A candidate that became less sure so answers less, which `judging` looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from moe_router.training.feedback.judging import Guarded

DIGITS = 4
"""Of a threshold."""


def carried(
    curve: Sequence[Mapping[str, float]], shipped: Guarded, candidate: Guarded
) -> list[dict[str, float]]:
    """The candidate's curve; the shipped one where the two answer alike.

    Args:
        curve: of the shipped task head, {risk, threshold, coverage}.
        shipped: the shipped router on the guarded requests.
        candidate: the candidate on the same ones.
    """
    scale = 10.0**DIGITS
    steps = np.unique(np.ceil(candidate.confidence.astype(np.float64) * scale) / scale)
    found = []
    for point in curve:
        threshold = float(point["threshold"])
        allowed = shipped.risk(threshold)
        tried = (threshold, *steps[steps > threshold].tolist())
        least = next((t for t in tried if candidate.risk(t) <= allowed), 1.0)
        before, after = shipped.coverage(threshold), candidate.coverage(least)
        coverage = min(point["coverage"] * after / before, 1.0) if before else point["coverage"]
        found.append({**point, "threshold": least, "coverage": round(coverage, 4)})
    return found

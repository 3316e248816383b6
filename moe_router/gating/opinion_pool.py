"""Hears a probe and an expert together: a logarithmic opinion pool of what both make of a text.

    p(k) ~ p_probe(k)^a p_expert(k)^b

A linear head and an LLM err on different texts, so that both together are often right more often than
either (Genest and Zidek, 1986; Heskes, 1998). The weights are fitted by likelihood on validation texts, which
calibrates the joint distribution as well: a + b is an inverse temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_router.gating.heads import softmax
from moe_router.gating.weights import Floats

LEAST = 1e-6
"""No opinion rules a label out: it counts as at least so likely."""


@dataclass(frozen=True, slots=True)
class OpinionPool:
    """The weights of the two opinions; both at least 0."""

    probe: float
    expert: float

    def __call__(self, probe: Mapping[str, float], expert: Mapping[str, float]) -> dict[str, float]:
        """The joint distribution over the probe's labels, in their order."""
        logits = self.probe * log_opinion(probe, probe) + self.expert * log_opinion(expert, probe)
        return dict(zip(probe, softmax(logits).tolist(), strict=True))


def log_opinion(table: Mapping[str, float], labels: Mapping[str, float]) -> Floats:
    """The logs of a distribution in the order of the labels: (labels,) float32."""
    return np.log(np.array([max(table.get(label, 0.0), LEAST) for label in labels], np.float32))

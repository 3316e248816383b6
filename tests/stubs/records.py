"""Decision records for tests of the storage."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.storage.records import DecisionRecord

HIDDEN = 4
ENCODER = "stub"
TASK = "finance/sentiment_analysis"


def vector(value: float) -> bytes:
    return np.full(HIDDEN, value, "<f2").tobytes()


def step(**values: Any) -> dict[str, Any]:
    return {
        "action": "expert:fin", "label": "positive", "confidence": 0.75, "margin": 0.5, "cost": 1.0,
        "accepted": True, "fault": None, **values,
    }  # fmt: skip


def record(request_id: str = "r-1", caller: str = "address:192.0.2.1", **values: Any) -> DecisionRecord:
    """One that decided for `TASK` and was answered `positive`."""
    made: dict[str, Any] = {
        "created_at": 1000.0,
        "encoder": ENCODER,
        "description_vector": vector(0.5),
        "text_vector": vector(0.25),
        "language": "de",
        "language_probability": 0.9,
        "domain_probabilities": {"finance": 0.9, "social": 0.05},
        "task_probabilities": {TASK: 0.9, "social/tone": 0.05},
        "none_probability": 0.05,
        "task": TASK,
        "task_fixed": False,
        "abstained": None,
        "action": "expert:fin",
        "propensity": 1.0,
        "observations": [step()],
        "fault": None,
        "router_version": None,
    }
    return DecisionRecord(request_id=request_id, caller=caller, **(made | values))

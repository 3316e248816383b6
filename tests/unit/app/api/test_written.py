"""What is written by plain members is, byte for byte, what the model of the contract writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.api.messages import to_json
from moe_router.contracts import Abstention, BatchAnswer, BatchItemError, ClassifyAnswer, Entity, Problem
from moe_router.members import AnswerMembers, StepMembers, TimingsMembers

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SHARES = st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, 1e-7, 1e-300]) | st.floats(0.0, 1.0).map(np.float64)
MS = st.floats(0.0, 1e25)
TABLES = st.none() | st.dictionaries(TEXTS, SHARES)
ENTITIES = st.builds(
    Entity, type=TEXTS, start=st.integers(0, 9), end=st.integers(1, 99), value=TEXTS, confidence=SHARES
)
ABSTENTIONS = st.builds(
    Abstention, reason=st.just("low_confidence"), detail=TEXTS, nearest_tasks=st.just(["a/b"])
)


def members(plain: Any, **values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """In the order of the members, which hypothesis' own dictionaries do not keep."""
    names = list(plain.__annotations__)
    assert names == list(values)
    return st.tuples(*values.values()).map(lambda drawn: dict(zip(names, drawn, strict=True)))


STEPS = members(
    StepMembers,
    step=st.just("expert"), choice=st.none() | TEXTS, probability=st.none() | SHARES, ms=MS,
)  # fmt: skip
TIMINGS = members(TimingsMembers, language=MS, encode=MS, domain=MS, task=MS, worker=MS, total=MS)
ANSWERS = members(
    AnswerMembers,
    request_id=TEXTS, language=TEXTS, domain=st.none() | TEXTS, task=st.none() | TEXTS,
    result=st.none() | TEXTS, confidence=SHARES, probabilities=TABLES, domain_probabilities=TABLES,
    entities=st.none() | st.lists(ENTITIES), abstained=st.none() | ABSTENTIONS,
    raw_response=st.none() | TEXTS, routing_path=st.lists(STEPS), worker_id=st.none() | TEXTS,
    model_key=st.none() | TEXTS, processing_time_ms=MS, timings_ms=TIMINGS,
)  # fmt: skip


@given(ANSWERS)
def test_an_answer(found: AnswerMembers) -> None:
    assert to_json(found) == ClassifyAnswer(**found).model_dump_json().encode()


@given(ANSWERS)
def test_a_batch(found: AnswerMembers) -> None:
    problem = Problem.model_validate({"type": "t", "title": "t", "status": 400, "detail": "d", "errors": []})
    error = BatchItemError(error=problem)
    batch = BatchAnswer(results=[ClassifyAnswer(**found), error])
    assert to_json({"results": [found, error]}) == batch.model_dump_json().encode()

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moe_router.contracts import (
    Abstention,
    BatchAnswer,
    BatchRequest,
    ClassifyAnswer,
    ClassifyOptions,
    ClassifyRequest,
    Entity,
    ExpertRequest,
    Problem,
    WorkerHealth,
)

ANSWER: dict[str, Any] = {
    "request_id": "r", "language": "en", "domain": "a", "task": "a/b", "result": "x", "confidence": 0.5,
    "routing_path": [{"step": "language", "choice": "en", "probability": 1.0, "ms": 0.1}],
    "worker_id": "w", "model_key": "m", "processing_time_ms": 1.0, "timings_ms": {},
}  # fmt: skip


def test_the_schemas_load_without_heavy_packages():
    code = (
        "import sys, moe_router.contracts, moe_router.errors;"
        "print([m for m in ('torch', 'numpy', 'onnxruntime', 'transformers', 'fastapi') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_typo_in_a_request_fails_loudly():
    for data in (
        {"text": "x", "descripton": "y"},
        {"text": "x", "options": {"return_probabilites": True}},
    ):
        with pytest.raises(ValidationError, match="Extra inputs"):
            ClassifyRequest.model_validate(data)
    with pytest.raises(ValidationError, match="Extra inputs"):
        ExpertRequest.model_validate({"task_key": "a/b", "text": "x", "language": "en", "adaptor_name": "y"})


def test_an_older_reader_takes_a_newer_answer():
    answer = ClassifyAnswer.model_validate({**ANSWER, "explanation": "new"})
    assert "explanation" not in answer.model_dump()
    problem = Problem.model_validate(
        {"type": "t", "title": "t", "status": 400, "detail": "d", "known_tasks": ["a/b"]}
    )
    assert problem.model_dump()["known_tasks"] == ["a/b"]  # extension members are kept


@pytest.mark.parametrize(
    ("options", "member"),
    [
        ({"task": "finance"}, "task"),
        ({"task": "a/b/c"}, "task"),
        ({"task": "a /b"}, "task"),
        ({"task": "a/" + "b" * 200}, "task"),
        ({"language": "EN"}, "language"),
        ({"language": "english"}, "language"),
        ({"language": "en\n"}, "language"),
        ({"via": "llm"}, "via"),
        ({"on_abstain": "raise"}, "on_abstain"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 3601}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
    ],
)
def test_options_are_checked(options, member):
    with pytest.raises(ValidationError) as caught:
        ClassifyOptions.model_validate(options)
    assert caught.value.errors()[0]["loc"][0] == member


def test_a_request_needs_text_of_characters():
    with pytest.raises(ValidationError):
        ClassifyRequest.model_validate({"text": ""})
    with pytest.raises(ValidationError):
        ClassifyRequest.model_validate({"text": "a lone surrogate \ud800"})
    with pytest.raises(ValidationError):
        ClassifyRequest.model_validate({"text": "x", "fields": {"": "no name"}})
    assert ClassifyRequest.model_validate({"text": "x"}).options == ClassifyOptions()


def test_batches_hold_1_to_100_items_of_any_form():
    assert len(BatchRequest.model_validate({"items": [{}, 3, None]}).items) == 3
    for items in ([], [{}] * 101):
        with pytest.raises(ValidationError):
            BatchRequest.model_validate({"items": items})


def test_an_item_of_a_batch_is_an_answer_or_an_error():
    problem = {"type": "t", "title": "t", "status": 400, "detail": "d"}
    read = BatchAnswer.model_validate({"results": [ANSWER, {"error": problem}]})
    assert [type(r).__name__ for r in read.results] == ["ClassifyAnswer", "BatchItemError"]


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_no_probability_is_out_of_range(confidence):
    with pytest.raises(ValidationError):
        ClassifyAnswer.model_validate({**ANSWER, "confidence": confidence})
    with pytest.raises(ValidationError):
        Entity(type="X", start=0, end=1, value="a", confidence=confidence)


def test_an_abstention_has_a_known_reason_and_whole_task_keys():
    with pytest.raises(ValidationError):
        Abstention.model_validate({"reason": "tired", "detail": "d"})
    with pytest.raises(ValidationError):
        Abstention(reason="out_of_scope", detail="d", nearest_tasks=["finance"])


@settings(deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    description=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    via=st.sampled_from(["auto", "expert", "probe"]),
)
def test_requests_survive_the_wire(text, description, via):
    request = ClassifyRequest(text=text, description=description, options=ClassifyOptions(via=via))
    assert ClassifyRequest.model_validate_json(request.model_dump_json()) == request


def test_answers_survive_the_wire():
    answer = ClassifyAnswer.model_validate(ANSWER)
    assert ClassifyAnswer.model_validate_json(answer.model_dump_json()) == answer
    health = WorkerHealth(status="loading", worker_id="w", model_key="m", progress=0.5, queue_depth=0)
    assert WorkerHealth.model_validate_json(health.model_dump_json()) == health

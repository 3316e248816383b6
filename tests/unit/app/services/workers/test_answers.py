from __future__ import annotations

import json
from typing import Any

import pytest

from app.services.workers.answers import check_answer, read_answer
from moe_router.errors import WorkerAnswerError
from tests.stubs import files
from tests.stubs.serving import question, registry

GOOD = {
    "result": "positive",
    "confidence": 0.9,
    "worker_id": "w",
    "model_key": "m",
    "adapter_name": None,
    "processing_time_ms": 1.0,
}
TEXT = "Ann 👩‍🚀 writes"


def judge(task_key: str, **changes: Any) -> None:
    answer = read_answer(json.dumps({**GOOD, **changes}).encode(), "w")
    request = question(TEXT, task_key, "r-1")
    check_answer(answer, request, registry().task(task_key), "w")


def entity(start: int, end: int, value: str, kind: str = "NAME") -> dict[str, Any]:
    return {"type": kind, "start": start, "end": end, "value": value, "confidence": 0.5}


def test_good_answers_pass() -> None:
    judge(files.SENTIMENT)
    judge(files.SENTIMENT, request_id="r-1")
    judge(files.SENTIMENT, probabilities={"negative": 0.1, "neutral": 0.0, "positive": 0.9})
    judge(files.PII, result="entities", entities=[entity(0, 3, "Ann"), entity(4, 7, "👩‍🚀")])


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "r-2"},
        {"result": "purple"},
        {"result": None},
        {"confidence": float("nan")},
        {"confidence": float("inf")},
        {"confidence": 1.5},
        {"confidence": "high"},
        {"probabilities": {"positive": 0.4}},
        {"probabilities": {"positive": 0.5, "purple": 0.5}},
    ],
)
def test_bad_labels_and_numbers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WorkerAnswerError):
        judge(files.SENTIMENT, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "NAME", "entities": []},
        {"result": "entities"},
        {"result": "entities", "entities": [entity(0, 3, "Bob")]},
        {"result": "entities", "entities": [entity(3, 3, "")]},
        {"result": "entities", "entities": [entity(0, 400, TEXT)]},
        {"result": "entities", "entities": [entity(0, 3, "Ann", "PLANET")]},
        {"result": "entities", "entities": [entity(-1, 3, "")]},
    ],
)
def test_bad_entities_are_refused_without_telling_the_text(changes: dict[str, Any]) -> None:
    with pytest.raises(WorkerAnswerError) as caught:
        judge(files.PII, **changes)
    assert "Ann" not in caught.value.detail


def test_no_json_is_refused() -> None:
    for body in (b"", b"<html>", b"[]", b'{"result": ', b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(WorkerAnswerError):
            read_answer(body, "w")


def test_thousands_of_mistakes_are_counted() -> None:
    wrong = json.dumps({**GOOD, "result": "entities", "entities": [{}] * 5000}).encode()
    with pytest.raises(WorkerAnswerError, match=r"with \d{5} mistakes"):
        read_answer(wrong, "w")

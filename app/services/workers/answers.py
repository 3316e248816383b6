"""Checks a worker's answer against what was asked; what is wrong is a fault of that worker."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from moe_router.contracts import Entity, ExpertAnswer
from moe_router.errors import WorkerAnswerError
from moe_router.invalid_body import READ_MISTAKES
from moe_router.members import ExpertMembers
from moe_router.registry import TaskSpec

ENTITIES = "entities"
SUM_TOLERANCE = 0.01


def read_answer(body: bytes, worker_id: str) -> ExpertAnswer:
    """Parses the body of a 200.

    Raises:
        WorkerAnswerError: it is no JSON, or does not fit the schema (a confidence that is no finite
            number in [0, 1] among others).
    """
    try:
        answer: ExpertAnswer = ExpertAnswer.__pydantic_validator__.validate_json(body)
        return answer
    except ValidationError as error:
        raise _misfit(error, worker_id) from error


def read_item(item: Any, worker_id: str) -> ExpertAnswer:
    """Reads one answer of a batch, parsed already; raises as `read_answer`."""
    try:
        return ExpertAnswer.model_validate(item)
    except ValidationError as error:
        raise _misfit(error, worker_id) from error


def read_batch(body: bytes, items: int, worker_id: str) -> list[Any]:
    """The results in the body of a batch's 200, each to be read by itself.

    Raises:
        WorkerAnswerError: it is no JSON, or has another number of results than `items`.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WorkerAnswerError(f"{worker_id} answered a batch with no JSON") from error
    results = data.get("results") if isinstance(data, dict) else None
    if not isinstance(results, list) or len(results) != items:
        raise WorkerAnswerError(f"{worker_id} answered a batch without one result an item")
    return results


def _misfit(error: ValidationError, worker_id: str) -> WorkerAnswerError:
    if error.error_count() > READ_MISTAKES:
        return WorkerAnswerError(f"{worker_id} answered with {error.error_count()} mistakes")
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step)[:100] for step in first["loc"]) or "body"
    return WorkerAnswerError(f"{worker_id} answered with {where}: {first['msg']}")


def check_answer(answer: ExpertAnswer, request: ExpertMembers, task: TaskSpec, worker_id: str) -> None:
    """Checks that it is the answer to this request, the label, the distribution and the offsets.

    Raises:
        WorkerAnswerError: with what is wrong, never with the caller's text.
    """
    asked = request.get("request_id")
    if answer.request_id != asked and answer.request_id and asked:
        raise WorkerAnswerError(f"{worker_id} gave the answer to another request")
    if task.kind == "extraction":
        if answer.result != ENTITIES or answer.entities is None:
            raise WorkerAnswerError(f"{worker_id} answered an extraction without entities")
        for index, entity in enumerate(answer.entities):
            _check_entity(entity, index, request["text"], task, worker_id)
        return
    labels = task.label_set
    if labels and task.strict_label_decoding and answer.result not in labels:
        raise WorkerAnswerError(f"{worker_id} answered with a label that {request['task_key']} does not have")
    if answer.probabilities is None:
        return
    if labels and not answer.probabilities.keys() <= set(labels):
        raise WorkerAnswerError(f"{worker_id} gave probabilities of labels that the task does not have")
    if abs(sum(answer.probabilities.values()) - 1.0) > SUM_TOLERANCE:
        raise WorkerAnswerError(f"{worker_id} gave probabilities that do not sum to 1")


def _check_entity(entity: Entity, index: int, text: str, task: TaskSpec, worker_id: str) -> None:
    if task.label_set and entity.type not in task.label_set:
        raise WorkerAnswerError(f"{worker_id} gave entity {index} a type that the task does not have")
    sound = 0 <= entity.start < entity.end <= len(text)
    if not sound or text[entity.start : entity.end] != entity.value:
        raise WorkerAnswerError(f"{worker_id} gave entity {index} offsets that do not match the text")

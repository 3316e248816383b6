"""Speaks HTTP with one worker: a call, a health probe, the list of its tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from app.services.workers import faults
from app.services.workers.answers import read_answer, read_batch, read_item
from app.services.workers.connection import Reply, WorkerHttpError
from app.services.workers.faults import Fault
from app.services.workers.http import Http
from app.services.workers.worker import Worker
from moe_router.contracts import (
    HEADER_CALLER,
    HEADER_REQUEST_ID,
    HEADER_TIMEOUT_MS,
    ExpertAnswer,
    ExpertTasksAnswer,
    WorkerHealth,
)
from moe_router.errors import WorkerAnswerError

ModelT = TypeVar("ModelT", bound=BaseModel)
CLASSIFY = "/api/v1/expert/classify"
BATCH = "/api/v1/expert/classify/batch"
TASKS = "/api/v1/expert/tasks"
READY = "/api/v1/health/ready"
OK = HTTPStatus.OK.value


class Question(NamedTuple):
    """What is asked of an expert."""

    body: bytes
    """an ExpertRequest, as JSON"""
    request_id: str
    caller: str
    """opaque"""
    timeout_s: float
    """told to the worker alone: the asker bounds the time itself"""
    trace: Mapping[str, str]


class WorkerClient:
    """Stateless but for the connections; every method raises Fault where the worker fails."""

    def __init__(self, http: Http, token: str | None) -> None:
        self._http = http
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}

    async def classify(self, worker: Worker, question: Question) -> ExpertAnswer:
        """One call of an expert; the answer fits the schema and comes from the right model."""
        headers = self._headers(question, question.timeout_s)
        body = _sound(await self._send("POST", worker, CLASSIFY, headers, question.body), worker)
        try:
            return _checked(read_answer(body, worker.worker_id), worker)
        except WorkerAnswerError as error:
            raise faults.invalid(error) from error

    async def classify_all(self, worker: Worker, questions: Sequence[Question]) -> list[ExpertAnswer | Fault]:
        """Several calls in one request of one caller: an answer or a fault each, in their order."""
        if len(questions) == 1:
            return [await self.classify(worker, questions[0])]
        asked = b'{"items":[' + b",".join(question.body for question in questions) + b"]}"
        longest_s = max(question.timeout_s for question in questions)
        headers = self._headers(questions[0], longest_s)
        body = _sound(await self._send("POST", worker, BATCH, headers, asked), worker)
        try:
            results = read_batch(body, len(questions), worker.worker_id)
        except WorkerAnswerError as error:
            raise faults.invalid(error) from error
        return [_item(result, worker) for result in results]

    async def health(self, worker: Worker) -> tuple[int, WorkerHealth | None]:
        """Status and body of /health/ready; None where the body is none of a worker's."""
        reply = await self._send("GET", worker, READY, self._authorization, None)
        return reply.status, _read(WorkerHealth, reply.body)

    async def tasks(self, worker: Worker) -> tuple[int, ExpertTasksAnswer | None]:
        """Status and body of /expert/tasks."""
        reply = await self._send("GET", worker, TASKS, self._authorization, None)
        return reply.status, _read(ExpertTasksAnswer, reply.body)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    def _headers(self, question: Question, timeout_s: float) -> dict[str, str]:
        return {
            **self._authorization,
            "Content-Type": "application/json",
            HEADER_REQUEST_ID: question.request_id,
            HEADER_CALLER: question.caller,
            HEADER_TIMEOUT_MS: str(max(math.floor(timeout_s * 1000), 1)),
            **question.trace,
        }

    async def _send(
        self, method: str, worker: Worker, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        try:
            return await self._http.ask(method, worker.spec.url + path, headers, body)
        except (WorkerHttpError, ValueError, OSError) as error:
            raise faults.of_transport(error, worker.worker_id) from error


def _sound(reply: Reply, worker: Worker) -> bytes:
    """The body of the 200 to a call of experts; any other answer is a fault."""
    if reply.status == OK:
        return reply.body
    slug, detail = _problem(reply.body)
    raise faults.of_status(reply.status, slug, detail, reply.retry_after_s, worker.worker_id)


def _read(model: type[ModelT], body: bytes) -> ModelT | None:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None


def _item(result: Any, worker: Worker) -> ExpertAnswer | Fault:
    """One result of a batch."""
    problem = result.get("error") if isinstance(result, dict) else None
    if isinstance(problem, dict):
        status = problem.get("status")
        slug, detail = _told(problem)
        return faults.of_status(
            status if isinstance(status, int) else 500, slug, detail, None, worker.worker_id
        )
    try:
        return _checked(read_item(result, worker.worker_id), worker)
    except WorkerAnswerError as error:
        return faults.invalid(error)


def _checked(answer: ExpertAnswer, worker: Worker) -> ExpertAnswer:
    """The answer, where it comes from the model that the mapping promises; else the worker is refused."""
    if answer.model_key != worker.model_key:
        worker.refuse(f"it answers for the model {answer.model_key[:200]!r}")
        raise WorkerAnswerError(f"{worker.worker_id} answers for another model")
    return answer


def _problem(body: bytes) -> tuple[str, str]:
    """The last part of a problem's type, and its detail."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    return _told(data) if isinstance(data, dict) else ("", "")


def _told(problem: dict[str, Any]) -> tuple[str, str]:
    return str(problem.get("type", "")).rpartition("/")[2], str(problem.get("detail", ""))[:500]

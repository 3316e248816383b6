"""Speaks HTTP with one worker: a call, a health probe, the list of its tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from app.services import faults
from app.services.answers import read_answer
from app.services.worker import Worker
from app.services.worker_connection import WorkerHttpError
from app.services.worker_http import Http, Reply
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
TASKS = "/api/v1/expert/tasks"
READY = "/api/v1/health/ready"


class WorkerClient:
    """Stateless but for the connections; every method raises Fault where the worker fails."""

    def __init__(self, http: Http, token: str | None) -> None:
        self._http = http
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}

    async def classify(
        self,
        worker: Worker,
        body: bytes,
        *,
        request_id: str,
        caller: str,
        timeout_s: float,
        trace: Mapping[str, str],
    ) -> ExpertAnswer:
        """One call of an expert; the answer fits the schema and comes from the right model.

        The caller bounds the time; `timeout_s` only tells the worker.
        """
        headers = {
            "Content-Type": "application/json",
            HEADER_REQUEST_ID: request_id,
            HEADER_CALLER: caller,
            HEADER_TIMEOUT_MS: str(max(math.floor(timeout_s * 1000), 1)),
            **trace,
        }
        reply = await self._send("POST", worker, CLASSIFY, headers, body)
        if reply.status != HTTPStatus.OK:
            slug, detail = _problem(reply.body)
            raise faults.of_status(reply.status, slug, detail, reply.retry_after_s, worker.worker_id)
        try:
            answer = read_answer(reply.body, worker.worker_id)
        except WorkerAnswerError as error:
            raise faults.invalid(error) from error
        if answer.model_key != worker.model_key:
            worker.refuse(f"it answers for the model {answer.model_key[:200]!r}")
            raise faults.invalid(WorkerAnswerError(f"{worker.worker_id} answers for another model"))
        return answer

    async def health(self, worker: Worker) -> tuple[int, WorkerHealth | None]:
        """Status and body of /health/ready; None where the body is none of a worker's."""
        reply = await self._send("GET", worker, READY, {}, None)
        return reply.status, _read(WorkerHealth, reply.body)

    async def tasks(self, worker: Worker) -> tuple[int, ExpertTasksAnswer | None]:
        """Status and body of /expert/tasks."""
        reply = await self._send("GET", worker, TASKS, {}, None)
        return reply.status, _read(ExpertTasksAnswer, reply.body)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _send(
        self, method: str, worker: Worker, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        try:
            return await self._http.ask(
                method, worker.spec.url + path, {**self._authorization, **headers}, body
            )
        except (WorkerHttpError, ValueError, OSError) as error:
            raise faults.of_transport(error, worker.worker_id) from error


def _read(model: type[ModelT], body: bytes) -> ModelT | None:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None


def _problem(body: bytes) -> tuple[str, str]:
    """The last part of a problem's type, and its detail."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    return str(data.get("type", "")).rpartition("/")[2], str(data.get("detail", ""))[:500]

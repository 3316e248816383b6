"""Speaks HTTP with one worker: a call, a health probe, the list of its tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, ValidationError

from app.services import faults
from app.services.answers import read_answer
from app.services.worker import Worker
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
MAX_ANSWER_BYTES = 16 * 2**20
LONGEST_RETRY_AFTER_S = 30.0
COMMON_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "mole"}
KEEPALIVE_S = 3.0
"""Below uvicorn's 5 s: the server must not close a connection just as a call goes out on it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and Retry-After (seconds) of a worker's answer."""

    status: int
    body: bytes
    retry_after_s: float | None


def make_http_client(connect_timeout_s: float) -> httpx.AsyncClient:
    """One pooled client for all workers: the httpx API on aiohttp, which is much faster under load."""

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=10)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session),
        timeout=httpx.Timeout(None, connect=connect_timeout_s),
        trust_env=False,  # a proxy set for the outer world does not know the workers
    )


class WorkerClient:
    """Stateless but for the connections; every method raises Fault where the worker fails."""

    def __init__(self, http: httpx.AsyncClient, token: str | None) -> None:
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
        if reply.status != httpx.codes.OK:
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
        # Built by hand: the client's build_request() parses the URL and merges headers anew, 100 µs a call.
        request = httpx.Request(
            method,
            _url(worker.spec.url + path),
            headers={**COMMON_HEADERS, **self._authorization, **headers},
            content=body,
            extensions={"timeout": self._http.timeout.as_dict()},
        )
        try:
            response = await self._http.send(request, stream=True)
            try:
                content = await _bounded(response, worker.worker_id)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise faults.of_transport(error, worker.worker_id) from error
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, ValueError, OSError) as error:
            raise faults.invalid(WorkerAnswerError(f"{worker.worker_id} does not speak HTTP.")) from error
        return Reply(response.status_code, content, _retry_after(response.headers.get("Retry-After")))


@lru_cache(maxsize=1024)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


async def _bounded(response: httpx.Response, worker_id: str) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise faults.invalid(WorkerAnswerError(f"{worker_id} answered with too much"))
        chunks.append(chunk)
    return b"".join(chunks)


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


def _retry_after(value: str | None) -> float | None:
    """Seconds, of the numeric form only: a date needs clocks that agree."""
    if value is None or not value.strip().isdigit():
        return None
    return min(float(value.strip()[:6]), LONGEST_RETRY_AFTER_S)

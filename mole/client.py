"""A typed client of the coordinator: classify, route, feedback, jobs, tasks, workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from moe_router.contracts import (
    ClassifyAnswer,
    CoordinatorHealth,
    FeedbackAnswer,
    JobAnswer,
    Problem,
    RouteAnswer,
    TaskInfo,
    TasksAnswer,
    WorkersAnswer,
)
from mole.jobs import LINES, JobResult, path_of, to_chunks, to_result

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 310.0
"""A little more than the coordinator's own bound of 2.5 × 120 s, so that its 504 arrives first."""
CONNECT_TIMEOUT_S = 5.0
PREFIX = "/api/v1"

AnswerT = TypeVar("AnswerT", bound=BaseModel)


class MoleClientError(Exception):
    """Root of what the client raises."""


class MoleConnectionError(MoleClientError):
    """Nothing that speaks MoLE answers at the address, or it stopped answering in the middle."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no MoLE service answers at {url}: {reason}")
        self.url = url
        self.reason = reason


class MoleAPIError(MoleClientError):
    """The coordinator refused the request or failed; carries its problem details (RFC 9457)."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.title} ({problem.status}): {problem.detail}")
        self.problem = problem
        self.status = problem.status
        self.retry_after_s = retry_after_s


class Mole:
    """A blocking client with one connection pool; usable as a context manager.

    Args:
        base_url: Where the coordinator listens.
        api_key: Sent as a bearer token where given.
        timeout_s: Bound on each wait for the answer, in seconds.
        transport: Another httpx transport, such as an in-process application.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._http = httpx.Client(
                base_url=self.base_url + PREFIX,
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise MoleConnectionError(base_url, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def classify(
        self,
        text: str,
        description: str | None = None,
        *,
        fields: dict[str, str] | None = None,
        **options: Any,
    ) -> ClassifyAnswer:
        """The label or entities of a text.

        Args:
            text: What to classify.
            description: What to find out, in any language.
            fields: Values for the template's further names.
            **options: Members of the request's `options`, such as `task`, `language`, `via`,
                `on_abstain`, `return_probabilities`, `timeout_seconds`.

        Raises:
            MoleAPIError: the coordinator answered with problem details.
            MoleConnectionError: it did not answer.
        """
        return self._post("/classify", _body(text, description, fields, options), ClassifyAnswer)

    def route(
        self,
        text: str,
        description: str | None = None,
        *,
        fields: dict[str, str] | None = None,
        **options: Any,
    ) -> RouteAnswer:
        """The gating decision alone, by the same code as `classify`; no expert is called.

        Raises:
            MoleAPIError: the coordinator answered with problem details.
            MoleConnectionError: it did not answer.
        """
        return self._post("/route", _body(text, description, fields, options), RouteAnswer)

    def feedback(
        self,
        request_id: str,
        *,
        correct_task: str | None = None,
        correct_label: str | None = None,
        score: float | None = None,
    ) -> FeedbackAnswer:
        """Says what the right answer would have been; returns once that is stored durably.

        Args:
            request_id: Of the answer that is judged.
            correct_task: The task that was asked for, as a whole task key.
            correct_label: The label that is right for that task, or for the task that was chosen.
            score: How good the answer was, from 0 to 1.

        Raises:
            MoleAPIError: the coordinator answered with problem details; 404 where it has no record
                of the request.
            MoleConnectionError: it did not answer.
        """
        said = {"correct_task": correct_task, "correct_label": correct_label, "score": score}
        return self._post("/feedback", {"request_id": request_id, **_stated(said)}, FeedbackAnswer)

    def submit_job(
        self, items: Iterable[Mapping[str, Any]] | Iterable[bytes], *, idempotency_key: str | None = None
    ) -> JobAnswer:
        """Hands many requests in at once; returns when they are stored durably.

        Args:
            items: Bodies of `classify` requests, such as {"text": …, "description": …}; or JSON Lines
                as bytes, in any pieces. Sent as they are produced.
            idempotency_key: The same key and items again give the same job.

        Raises:
            MoleAPIError: the coordinator answered with problem details.
            MoleConnectionError: it did not answer.
        """
        headers = {"Content-Type": LINES}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        response = self._send("POST", "/jobs", content=to_chunks(items), headers=headers)
        return self._checked(response, JobAnswer)

    def job(self, job_id: str) -> JobAnswer:
        """How far a job is.

        Raises:
            MoleAPIError: the coordinator answered with problem details; 404 where there is no such job.
            MoleConnectionError: it did not answer.
        """
        return self._get(path_of(job_id), JobAnswer)

    def cancel_job(self, job_id: str) -> JobAnswer:
        """Cancels a job; one that is finished stays as it is. Results so far can still be read.

        Raises:
            MoleAPIError, MoleConnectionError: as `job`.
        """
        return self._checked(self._send("DELETE", path_of(job_id)), JobAnswer)

    def job_results(self, job_id: str) -> Iterator[JobResult]:
        """The finished items of a job by index, read as they arrive.

        Raises:
            MoleAPIError, MoleConnectionError: as `job`; also in the middle.
        """
        for line in self.job_result_lines(job_id):
            try:
                yield to_result(line)
            except ValueError as error:
                raise MoleConnectionError(self.base_url, "something else answers there") from error

    def job_result_lines(self, job_id: str) -> Iterator[str]:
        """The same as JSON Lines, unread.

        Raises:
            MoleAPIError, MoleConnectionError: as `job_results`.
        """
        with (
            self._translated(),
            self._http.stream("GET", path_of(job_id, "/results")) as response,
        ):
            if response.is_error:
                response.read()
                raise MoleAPIError(_problem(response), _retry_after(response))
            yield from response.iter_lines()

    def tasks(self) -> list[TaskInfo]:
        """What can be asked."""
        return self._get("/tasks", TasksAnswer).tasks

    def workers(self) -> WorkersAnswer:
        """Who serves it, and how each worker is."""
        return self._get("/workers", WorkersAnswer)

    def health(self) -> CoordinatorHealth:
        """The coordinator's state, also while it is not ready."""
        response = self._send("GET", "/health")
        return self._read(response, CoordinatorHealth)

    def _get(self, path: str, answer: type[AnswerT]) -> AnswerT:
        return self._checked(self._send("GET", path), answer)

    def _post(self, path: str, body: dict[str, Any], answer: type[AnswerT]) -> AnswerT:
        return self._checked(self._send("POST", path, json=body), answer)

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        with self._translated():
            return self._http.request(method, path, **given)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise MoleConnectionError(self.base_url, "the time is up") from error
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise MoleConnectionError(self.base_url, str(error) or type(error).__name__) from error

    def _checked(self, response: httpx.Response, answer: type[AnswerT]) -> AnswerT:
        if response.is_error:
            raise MoleAPIError(_problem(response), _retry_after(response))
        return self._read(response, answer)

    def _read(self, response: httpx.Response, answer: type[AnswerT]) -> AnswerT:
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise MoleConnectionError(
                self.base_url, f"something else answers there (HTTP {response.status_code})"
            ) from error


def _body(
    text: str, description: str | None, fields: dict[str, str] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """The JSON of a request; what is None is left to the service's default."""
    stated = {"description": description, "fields": fields, "options": _stated(options) or None}
    return {"text": text, **_stated(stated)}


def _stated(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy in between answers with its own page
        return Problem(
            type="about:blank",
            title=response.reason_phrase or "Error",
            status=response.status_code,
            detail="The answer carries no problem details.",
        )


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None

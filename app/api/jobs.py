"""Jobs: any number of requests at once, worked off in the background."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, TypedDict, cast

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from app.api import examples, openapi
from app.api.job_upload import JSON_LINES, RequestUpload, UploadLimits
from app.api.messages import answer, runtime_of
from app.asgi.exchange import exchange_of, mount_point
from app.services.jobs.desk import JobDesk
from app.storage.job_records import ResultRow
from moe_router.contracts import JobAnswer, JobRequest, JobsAnswer
from moe_router.errors import NotReadyError, RequestError, UnknownJobError

router = APIRouter(prefix="/api/v1", tags=["jobs"])

# Declared here and read from the path: the framework would add a 422 that is never answered.
ID_EXTRA: dict[str, Any] = {
    "parameters": [{"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}]
}
LINES = "application/x-ndjson"
HEADER_KEY = "Idempotency-Key"
SANE_ID = re.compile(r"[0-9a-f]{32}")
SANE_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def desk_of(request: Request) -> JobDesk:
    """The desk of this application.

    Raises:
        NotReadyError: the process has not started yet.
    """
    desk = getattr(request.app.state, "jobs", None)
    if desk is None:
        raise NotReadyError("The coordinator is loading.")
    return cast(JobDesk, desk)


def _body() -> dict[str, Any]:
    found = openapi.body(JobRequest)
    lines = {"schema": {"type": "string", "description": "JSON Lines: a classify request a line."}}
    found["requestBody"]["content"] |= dict.fromkeys(sorted(JSON_LINES), lines)
    key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    found["parameters"] = [
        {
            "name": HEADER_KEY,
            "in": "header",
            "required": False,
            "schema": key,
            "description": "The same key and body again give the same job.",
        }
    ]
    return found


def _submit_answers() -> dict[int | str, dict[str, Any]]:
    found = openapi.answers(JobAnswer, openapi.JOB_SUBMIT_STATUSES, examples.JOB, success=HTTPStatus.ACCEPTED)
    found[HTTPStatus.ACCEPTED]["headers"] = {
        "Location": {"schema": {"type": "string"}, "description": "Where the job can be looked at."}
    }
    return found


def _results_answers() -> dict[int | str, dict[str, Any]]:
    found = openapi.answers(JobAnswer, openapi.JOB_READ_STATUSES)
    content = {LINES: {"schema": {"type": "string"}, "example": examples.JOB_RESULTS}}
    found[HTTPStatus.OK] = {"description": "A line for each finished item, by index.", "content": content}
    return found


@router.post(
    "/jobs",
    summary="Hand in a job",
    status_code=HTTPStatus.ACCEPTED,
    responses=_submit_answers(),
    openapi_extra=_body(),
)
async def submit_job(request: Request) -> Response:
    """Stores any number of classify requests, before it answers, and works them off in the background.

    A JSON body is read whole; JSON Lines are stored as they arrive. A request that is wrong fails by itself.
    """
    runtime = runtime_of(request)
    if runtime.status == "draining":
        raise NotReadyError("The coordinator is draining.")
    settings = runtime.settings
    limits = UploadLimits(settings.job_max_items, settings.job_max_body_bytes, settings.max_body_bytes)
    key = request.headers.get(HEADER_KEY)
    if key is not None and not SANE_KEY.fullmatch(key):
        raise RequestError(f"{HEADER_KEY}: 1 to 255 printable characters, no spaces.")
    exchange = exchange_of(request.scope)
    upload = RequestUpload(request, limits, exchange.check_texts)
    with runtime.admission.request(exchange.caller):
        job = await desk_of(request).submit(exchange.caller, upload, key, exchange)
    response = answer(job, HTTPStatus.ACCEPTED)
    response.headers["Location"] = f"{mount_point(request.scope)}/api/v1/jobs/{job.job_id}"
    return response


@router.get(
    "/jobs",
    summary="List your jobs",
    responses=openapi.answers(JobsAnswer, openapi.READ_STATUSES, examples.JOBS),
)
async def list_jobs(request: Request) -> Response:
    """The caller's newest 100 jobs, newest first; with the scope `admin` everybody's."""
    exchange = exchange_of(request.scope)
    return answer(await desk_of(request).newest(exchange.caller, everybodys=exchange.is_admin))


@router.get(
    "/jobs/{job_id}",
    summary="Look at a job",
    responses=openapi.answers(JobAnswer, openapi.JOB_READ_STATUSES, examples.JOB),
    openapi_extra=ID_EXTRA,
)
async def get_job(request: Request) -> Response:
    """How far the caller's job is."""
    return answer(await desk_of(request).look(**_asked(request)))


@router.get(
    "/jobs/{job_id}/results",
    summary="Read a job's results",
    response_class=StreamingResponse,
    responses=_results_answers(),
    openapi_extra=ID_EXTRA,
)
async def get_results(request: Request) -> Response:
    """The finished items, one a line, by index: an answer, or an `error`; of a running job those so far."""
    pages = await desk_of(request).results(**_asked(request))
    return StreamingResponse(_lines(pages), media_type=LINES)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    responses=openapi.answers(JobAnswer, openapi.JOB_CANCEL_STATUSES, examples.JOB),
    openapi_extra=ID_EXTRA,
)
async def cancel_job(request: Request) -> Response:
    """Cancels the caller's job; one that is finished stays as it is. Results so far can still be read."""
    return answer(await desk_of(request).cancel(**_asked(request)))


class _Asked(TypedDict):
    """Who asks for which job."""

    caller: str
    job_id: str
    everybodys: bool


def _asked(request: Request) -> _Asked:
    """The caller, the id in the path, and whether the caller sees everybody's jobs.

    Raises:
        UnknownJobError: it is the id of no job, nor a text that every database takes.
    """
    job_id = request.path_params["job_id"]
    if not SANE_ID.fullmatch(job_id):
        raise UnknownJobError("This is the id of no job.")
    exchange = exchange_of(request.scope)
    return {"caller": exchange.caller, "job_id": job_id, "everybodys": exchange.is_admin}


async def _lines(pages: AsyncIterator[list[ResultRow]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield "".join(map(_line, page)).encode()


def _line(row: ResultRow) -> str:
    """The stored JSON with its index in front; it is never parsed again."""
    if row.failed:
        return f'{{"index":{row.index},"error":{row.answer_json}}}\n'
    return f'{{"index":{row.index},{row.answer_json[1:]}\n'

"""One item of a job: from its stored request to the answer, or the problem document, to be stored."""

from __future__ import annotations

import logging

import orjson
from pydantic import ValidationError

from app.api import errors
from app.api.messages import to_json
from app.services.ports import Call
from app.services.runtime import Runtime
from app.storage.identity import job_identity
from app.storage.job_records import ClaimedItem, ItemKind, ItemOutcome
from moe_router.contracts import ClassifyRequest
from moe_router.errors import MoleError, OverloadedError
from moe_router.invalid_body import InvalidBodyError

logger = logging.getLogger(__name__)

OF_THE_TIME = (429, 502, 503, 504)
"""Statuses that say nothing about the request: it is tried again."""


class ItemExecutor:
    """The path of `/classify`, for the caller of the job."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self, item: ClaimedItem) -> ItemOutcome:
        """Classifies one item; raises nothing but a cancellation."""
        request_id = _request_id(item)
        try:
            try:
                asked = ClassifyRequest.model_validate_json(item.request_json)
            except ValidationError as error:
                raise InvalidBodyError(error) from error
            service = self._runtime.classification()
            call = Call(request_id, service.deadline(asked), caller=job_identity(item.owner))
            with self._runtime.admission.request(call.caller):
                found, _ = await service.classify(asked, call)
            return ItemOutcome(item, "done", to_json(found).decode())
        except MoleError as error:
            return _failure(item, error, "retry" if error.status in OF_THE_TIME else "failed")
        except Exception:  # a fault in one item must not end the work on the others
            logger.exception("request %s failed unexpectedly", request_id)
            return _failure(item, errors.unexpected(), "failed")

    def give_up(self, item: ClaimedItem) -> ItemOutcome:
        """The error of an item whose attempts were all cut off."""
        return _failure(item, OverloadedError("Every attempt was cut off before its end."), "failed")


def _request_id(item: ClaimedItem) -> str:
    return f"{item.job_id}.{item.index}"


def _failure(item: ClaimedItem, error: MoleError, kind: ItemKind) -> ItemOutcome:
    document = orjson.dumps(errors.document(error, _request_id(item)))
    return ItemOutcome(item, kind, document.decode())

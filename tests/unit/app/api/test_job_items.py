"""One item of a job: which faults are its caller's, and which are the time's."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from app.api.job_items import ItemExecutor
from app.services.admission import Admission
from app.storage.job_records import ClaimedItem
from moe_router.contracts import ClassifyRequest
from moe_router.errors import (
    DeadlineError,
    MoleError,
    NotReadyError,
    NoWorkerError,
    OverloadedError,
    RequestError,
    TextTooLongError,
    UnknownTaskError,
    WorkerAnswerError,
)


class Runtime:
    """Raises what it is given, as the classification or instead of it."""

    def __init__(self, error: Exception, *, room: int = 1) -> None:
        self.error = error
        self.admission = Admission(room, 1)

    def classification(self) -> Any:
        if isinstance(self.error, NotReadyError):
            raise self.error
        return self

    def deadline(self, _request: ClassifyRequest) -> float:
        return 0.0

    async def classify(self, _request: ClassifyRequest, call: Any) -> Any:
        assert call.caller == "job:owner"
        raise self.error


def item(text: str = '{"text":"x"}') -> ClaimedItem:
    return ClaimedItem("j", 7, "owner", text, 1)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoWorkerError("x"), "retry"),
        (OverloadedError("x"), "retry"),
        (NotReadyError("x"), "retry"),
        (WorkerAnswerError("x"), "retry"),
        (DeadlineError("x"), "retry"),
        (RequestError("x"), "failed"),
        (TextTooLongError("x"), "failed"),
        (UnknownTaskError("a/b", ()), "failed"),
    ],
)
async def test_the_times_faults_are_tried_again_and_the_callers_fail(error: MoleError, kind: str) -> None:
    outcome = await ItemExecutor(cast(Any, Runtime(error))).run(item())
    assert outcome.kind == kind
    document = json.loads(outcome.answer_json)
    assert (document["status"], document["request_id"]) == (error.status, "j.7")


async def test_an_item_is_a_request_of_the_house_and_waits_where_that_is_full() -> None:
    runtime = Runtime(RuntimeError("never asked"), room=0)
    assert (await ItemExecutor(cast(Any, runtime)).run(item())).kind == "retry"


async def test_a_fault_of_ours_fails_the_item_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outcome = await ItemExecutor(cast(Any, Runtime(RuntimeError("secret")))).run(item())
    assert outcome.kind == "failed"
    assert "secret" not in outcome.answer_json
    assert json.loads(outcome.answer_json)["status"] == 500
    assert "j.7 failed unexpectedly" in caplog.text


@pytest.mark.parametrize("text", ["1", "[]", '{"txt":"x"}', '{"text":"\\u0000"}x'])
async def test_what_is_no_request_fails(text: str) -> None:
    outcome = await ItemExecutor(cast(Any, Runtime(NoWorkerError("x")))).run(item(text))
    assert (outcome.kind, json.loads(outcome.answer_json)["status"]) == ("failed", 400)


def test_an_item_whose_attempts_are_used_up_says_so() -> None:
    outcome = ItemExecutor(cast(Any, None)).give_up(item())
    assert outcome.kind == "failed"
    assert json.loads(outcome.answer_json)["type"] == "/problems/overloaded"

from __future__ import annotations

import pytest

from app.services.ports import AttemptTimeoutError
from app.services.workers import faults
from app.services.workers.connection import (
    AnswerTooLongError,
    ClosedError,
    ConnectError,
    NotHttpError,
    TruncatedError,
)
from moe_router.errors import NoWorkerError, WorkerAnswerError


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectError(), "refused"),
        (ClosedError(), "reset"),
        (ConnectionResetError(), "reset"),
        (TruncatedError(), "truncated"),
    ],
)
def test_broken_connections_eject_at_once(error: Exception, outcome: str) -> None:
    fault = faults.of_transport(error, "w")
    assert (fault.outcome, fault.ejects, fault.mendable) == (outcome, "at once", True)


@pytest.mark.parametrize("error", [ValueError("x"), NotHttpError(), AnswerTooLongError()])
def test_what_does_not_speak_http_is_invalid(error: Exception) -> None:
    fault = faults.of_transport(error, "w")
    assert (fault.outcome, fault.ejects, fault.mendable) == ("invalid", "if repeated", True)


@pytest.mark.parametrize(
    ("status", "slug", "answered", "ejects"),
    [
        (500, "", 502, "if repeated"),
        (302, "", 502, "if repeated"),
        (401, "unauthorized", 502, "if repeated"),
        (400, "unknown-task", 503, "no"),
        (400, "unknown-expert", 503, "no"),
        (400, "unsupported-language", 503, "no"),
        (400, "another", 502, "if repeated"),
        (400, "missing-field", 400, "no"),
        (400, "invalid-request", 400, "no"),
        (413, "content-too-large", 413, "no"),
        (503, "", 503, "at once"),
        (503, "not-ready", 503, "at once"),
        (503, "no-worker", 503, "no"),
        (503, "overloaded", 503, "no"),
        (504, "deadline-exceeded", 504, "no"),
        (504, "", 502, "if repeated"),
    ],
)
def test_what_statuses_mean(status: int, slug: str, answered: int, ejects: str) -> None:
    fault = faults.of_status(status, slug, "detail", None, "w")
    assert (fault.error.status, fault.ejects) == (answered, ejects)
    assert fault.mendable == (answered >= 500)


def test_why_an_expert_cannot_be_served_is_for_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faults, "_told", faults.Told(faults.logger))
    fault = faults.of_status(503, "no-worker", "no such file: /srv/adapters/x", None, "w")
    assert fault.error.detail == "w cannot serve this task now."
    assert "no such file: /srv/adapters/x" in caplog.text


def test_why_an_expert_cannot_be_served_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [7.0]
    monkeypatch.setattr(faults, "_told", faults.Told(faults.logger, lambda: now[0]))
    logged = []
    for later_s in (0, 59, 1):
        now[0] += later_s
        for worker, detail in (("w", "broken"), ("v", "broken"), ("w", "missing")) * 9:
            faults.of_status(503, "no-worker", detail, None, worker)
        logged.append(len(caplog.records))
    assert logged == [3, 3, 6]


def test_what_was_logged_is_not_remembered_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    told = faults.Told(faults.logger, lambda: 7.0)
    for number in (*range(2 * faults.MOST_TOLD), faults.MOST_TOLD, 0):
        told.warn("number %s", str(number))
    assert len(told._at) == faults.MOST_TOLD
    assert len(caplog.records) == 2 * faults.MOST_TOLD + 1


def test_every_fault_is_one_of_ours() -> None:
    for late in (faults.timed_out("w", "no"), faults.of_status(504, "deadline-exceeded", "", None, "w")):
        assert isinstance(late.error, AttemptTimeoutError)
    error = WorkerAnswerError("x")
    assert faults.invalid(error).error is error
    assert isinstance(faults.of_status(503, "", "", 3.0, "w").error, NoWorkerError)

"""POST /feedback in process, on a real SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import feedback as module
from app.services.runtime import FEEDBACK_AT_ONCE
from tests.stubs import files, pool
from tests.stubs.gating import NOTHING_FITS
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import CLASSIFY, JSON, application, problem
from tests.unit.app.asgi.test_access import made

FEEDBACK = "/api/v1/feedback"
JOINED = (
    "SELECT correct_task, correct_label, score, task, action, fault, length(text_vector) "
    "FROM feedback JOIN decisions ON decisions.id = decision_id"
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = application(tmp_path, max_body_bytes=5000)
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


async def asked(client: httpx.AsyncClient, request_id: str = "r-1", **body: Any) -> str:
    answer = await client.post(
        CLASSIFY, json={"text": "positive", **body}, headers={"X-Request-ID": request_id}
    )
    assert answer.status_code == 200
    return request_id


def rows(folder: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(folder / "state" / "coordinator.sqlite3")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_feedback_is_stored_before_the_answer_and_replaced_by_the_next(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    request_id = await asked(client, description="Good news?")
    answer = await client.post(FEEDBACK, json={"request_id": request_id, "correct_label": "neutral"})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert set(body) == {"request_id", "received_at", "replaced"}
    assert (body["request_id"], body["replaced"]) == ("r-1", False)
    assert rows(tmp_path, JOINED) == [(None, "neutral", None, files.SENTIMENT, "expert:fin", None, 8)]
    again = await client.post(FEEDBACK, json={"request_id": request_id, "score": 0.5})
    assert again.json()["replaced"]
    assert rows(tmp_path, JOINED)[0][:3] == (None, None, 0.5)


async def test_what_another_process_answered_just_now_can_be_judged(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    other = application(tmp_path, max_body_bytes=5000)
    async with serving(other) as elsewhere:
        await until(lambda: other.state.runtime.status == "ready")
        await asked(elsewhere)
        assert (await client.post(FEEDBACK, json={"request_id": "r-1", "score": 1})).status_code == 202


async def test_who_waits_for_an_unknown_request_holds_up_nobody(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[float] = []

    async def sleeps(seconds: float) -> None:
        waiting.append(seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "sleep", sleeps)
    await asked(client)
    lost = [
        asyncio.create_task(client.post(FEEDBACK, json={"request_id": f"no-{n}", "score": 1}))
        for n in range(2 * FEEDBACK_AT_ONCE)
    ]
    await until(lambda: len(waiting) == len(lost))
    async with asyncio.timeout(10):
        assert (await client.post(FEEDBACK, json={"request_id": "r-1", "score": 1})).status_code == 202
    assert not any(task.done() for task in lost)
    for task in lost:
        task.cancel()
    await asyncio.gather(*lost, return_exceptions=True)


async def test_no_text_and_no_address_is_in_the_database(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await asked(client, text="Zanzibar", description="Quokka?")
    await client.post(FEEDBACK, json={"request_id": "r-1", "score": 1})
    stored = b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir())
    assert b"r-1" in stored
    for secret in (b"Zanzibar", b"Quokka", b"127.0.0.1"):
        assert secret not in stored


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({}, "request_id"),
        ({"request_id": "r-1"}, "body"),
        ({"request_id": "r-1", "score": None}, "body"),
        ({"request_id": "", "score": 1}, "request_id"),
        ({"request_id": "x" * 129, "score": 1}, "request_id"),
        ({"request_id": "a b", "score": 1}, "request_id"),
        ({"request_id": "r-1", "score": 1.1}, "score"),
        ({"request_id": "r-1", "score": -0.1}, "score"),
        ({"request_id": "r-1", "score": "high"}, "score"),
        ({"request_id": "r-1", "correct_task": "sentiment"}, "correct_task"),
        ({"request_id": "r-1", "correct_label": ""}, "correct_label"),
        ({"request_id": "r-1", "correct_label": "x" * 201}, "correct_label"),
        ({"request_id": "r-1", "correct_label": "sideways"}, "correct_label"),
        ({"request_id": "r-1", "correct_label": "a\0"}, "correct_label"),
        ({"request_id": "r-1", "correct_task": files.PII, "correct_label": "NAME"}, "correct_label"),
        (
            {"request_id": "r-1", "correct_task": files.GERMAN_ONLY, "correct_label": "positive"},
            "correct_label",
        ),
        ({"request_id": "r-1", "score": 1, "text": "x"}, "text"),
        ([], "body"),
    ],
)
async def test_mistakes_name_the_member(client: httpx.AsyncClient, body: Any, member: str) -> None:
    await asked(client)
    found = problem(await client.post(FEEDBACK, json=body), 400, "invalid-request")
    assert found["detail"].startswith(f"{member}: ")


async def test_a_wrong_label_is_answered_with_the_right_ones(client: httpx.AsyncClient) -> None:
    await asked(client)
    wrong = {"request_id": "r-1", "correct_label": "sideways"}
    assert "neutral" in problem(await client.post(FEEDBACK, json=wrong), 400, "invalid-request")["detail"]
    other = {"request_id": "r-1", "correct_task": files.GERMAN_ONLY, "correct_label": "rude"}
    assert (await client.post(FEEDBACK, json=other)).status_code == 202


async def test_other_refusals(client: httpx.AsyncClient) -> None:
    await asked(client)
    unknown_task = {"request_id": "r-1", "correct_task": "no/such"}
    problem(await client.post(FEEDBACK, json=unknown_task), 400, "unknown-task")
    unknown = {"request_id": "never-asked", "score": 1}
    problem(await client.post(FEEDBACK, json=unknown), 404, "unknown-request")
    problem(await client.post(FEEDBACK, content=b" " * 6000, headers=JSON), 413, "content-too-large")
    problem(await client.post(FEEDBACK, content=b"{", headers=JSON), 400, "invalid-request")
    form = {"content-type": "application/x-www-form-urlencoded"}
    problem(await client.post(FEEDBACK, content=b"score=1", headers=form), 415, "unsupported-media-type")


async def test_an_abstention_can_be_judged(client: httpx.AsyncClient) -> None:
    await asked(client, description=NOTHING_FITS)
    label = {"request_id": "r-1", "correct_label": "positive"}
    problem(await client.post(FEEDBACK, json=label), 400, "invalid-request")
    label["correct_task"] = files.SENTIMENT
    assert (await client.post(FEEDBACK, json=label)).status_code == 202


async def test_items_of_a_batch_are_judged_one_by_one(client: httpx.AsyncClient) -> None:
    items = [{"text": "neutral"}, {"text": "positive"}]
    answer = await client.post("/api/v1/classify/batch", json={"items": items})
    for result in answer.json()["results"]:
        stored = await client.post(FEEDBACK, json={"request_id": result["request_id"], "score": 1})
        assert stored.status_code == 202


async def test_a_fault_is_recorded_as_a_fault(client: httpx.AsyncClient, tmp_path: Path) -> None:
    answer = await client.post(CLASSIFY, json={"text": pool.FULL}, headers={"X-Request-ID": "r-1"})
    assert answer.status_code == 503
    stored = await client.post(FEEDBACK, json={"request_id": "r-1", "correct_task": files.SENTIMENT})
    assert stored.status_code == 202
    found = rows(tmp_path, "SELECT fault, action, json_extract(observations, '$[0].label') FROM decisions")
    assert found == [("overloaded", "expert:fin", None)]


async def test_without_a_database_answers_go_on_and_feedback_waits(tmp_path: Path) -> None:
    """The state folder is gone, then it is back: no restart."""
    app = application(tmp_path)
    state, away = tmp_path / "state", tmp_path / "away"
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready" and app.state.runtime.keyring.known)
        state.rename(away)
        state.write_text("a file is in the way")
        app.state.runtime.storage.database.reconnect()  # open connections would go on with the old files
        await asked(client)
        refused = problem(
            await client.post(FEEDBACK, json={"request_id": "r-1", "score": 1}), 503, "storage-unavailable"
        )
        assert str(tmp_path) not in refused["detail"]
        assert (await client.get("/api/v1/health/ready")).json()["checks"]["database"] == "unavailable"
        state.unlink()
        away.rename(state)
        stored = await client.post(FEEDBACK, json={"request_id": "r-1", "score": 1})
        assert stored.status_code == 202, stored.text
        assert (await client.get("/api/v1/health")).json()["checks"]["database"] == "ok"
        metrics = (await client.get("/metrics")).text
        assert 'mole_decision_records_total{outcome="written"} 1.0' in metrics


async def test_the_document_declares_what_can_be_answered(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    told = document["paths"][FEEDBACK]["post"]["responses"]
    assert set(told) == {"202", "400", "401", "403", "404", "408", "413", "415", "429", "431", "500", "503"}
    assert document["components"]["schemas"]["FeedbackRequest"]["required"] == ["request_id"]


async def test_a_caller_and_the_house_have_their_limits(tmp_path: Path) -> None:
    app = application(tmp_path, max_requests_per_caller=1)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        waiting = asyncio.create_task(client.post(CLASSIFY, json={"text": pool.WAIT}))
        await until(lambda: app.state.runtime.admission.requests == 1)
        problem(await client.post(FEEDBACK, json={"request_id": "r", "score": 1}), 429, "too-many-requests")
        job = await client.post("/api/v1/jobs", json={"items": [{"text": "x"}]})
        problem(job, 429, "too-many-requests")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_flood_leaves_connections_to_others_and_another_caller_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(tmp_path)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        await asked(client)
        storage, told = app.state.runtime.storage, asyncio.Event()
        find, begun = storage.find_decision, list[str]()

        async def slow(request_id: str, caller_hash: str, **given: Any) -> Any:
            begun.append(request_id)
            await told.wait()
            return await find(request_id, caller_hash, **given)

        monkeypatch.setattr(storage, "find_decision", slow)
        given = {"request_id": "r-1", "score": 1}
        flood = [asyncio.create_task(client.post(FEEDBACK, json=given)) for _ in range(20)]
        gate = app.state.runtime.feedback_gate
        await until(lambda: gate.waiting == 20 - FEEDBACK_AT_ONCE)
        other = httpx.ASGITransport(app, client=("10.0.0.2", 1))
        async with httpx.AsyncClient(transport=other, base_url="http://service") as another:
            quiet = asyncio.create_task(another.post(FEEDBACK, json={**given, "request_id": "r-2"}))
            await until(lambda: gate.waiting == 21 - FEEDBACK_AT_ONCE)
            told.set()
            assert (await quiet).status_code == 404
        assert begun.index("r-2") <= FEEDBACK_AT_ONCE
        assert {answer.status_code for answer in await asyncio.gather(*flood)} == {202}


async def test_where_keys_are_asked_for_a_caller_judges_its_own_answers_only(tmp_path: Path) -> None:
    app = application(tmp_path)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        mine, theirs = await made(app, "classify", "feedback", "jobs"), await made(app, "feedback")
        admin = await made(app, "admin")
        headers = {**mine, "X-Request-ID": "r-1"}
        assert (await client.post(CLASSIFY, json={"text": "positive"}, headers=headers)).status_code == 200
        job = await client.post("/api/v1/jobs", json={"items": [{"text": "positive"}]}, headers=mine)
        url = f"/api/v1/jobs/{job.json()['job_id']}"
        state = ""
        async with asyncio.timeout(20):
            while state != "succeeded":
                state = (await client.get(url, headers=mine)).json()["state"]
        for request_id in ("r-1", f"{job.json()['job_id']}.0"):
            given = {"request_id": request_id, "score": 1}
            problem(await client.post(FEEDBACK, json=given, headers=theirs), 404, "unknown-request")
            assert (await client.post(FEEDBACK, json=given, headers=mine)).status_code == 202
            assert (await client.post(FEEDBACK, json=given, headers=admin)).status_code == 202

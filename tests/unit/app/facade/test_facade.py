"""The façade in process: what is answered, in which form, and every error in OpenAI's words."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stubs import files, pool
from tests.stubs.gating import NOTHING_FITS
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import application

CHAT = "/v1/chat/completions"
SENTIMENT = f"mole/{files.SENTIMENT}"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = application(tmp_path, max_text_chars=100, max_body_bytes=5000)
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


def chat(text: Any = "positive", model: str = "mole/auto", system: str | None = None, **more: Any) -> Any:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {"model": model, "messages": [*messages, {"role": "user", "content": text}], **more}


def error(answer: httpx.Response, status: int, kind: str, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    told = answer.json()["error"]
    assert (told["type"], told["code"]) == (kind, code)
    assert set(told) == {"message", "type", "param", "code"}
    assert ("retry-after" in answer.headers) == (status == 429 or status >= 500)
    return str(told["message"])


async def test_a_completion_is_the_label(client: httpx.AsyncClient):
    answer = await client.post(CHAT, json=chat(temperature=0.2, max_tokens=5, tools=[{"type": "function"}]))
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["object"] == "chat.completion"
    assert told["id"] == "chatcmpl-" + answer.headers["x-request-id"]
    assert told["model"] == SENTIMENT
    (choice,) = told["choices"]
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "positive")
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert told["usage"]["total_tokens"] == 0
    assert told["mole"]["task"] == files.SENTIMENT
    assert answer.headers["x-mole-expert"].startswith(files.SENTIMENT)
    assert told["mole"]["routing_path"]


async def test_the_last_user_message_is_the_text_and_the_system_says_what_to_find(client: httpx.AsyncClient):
    messages = [
        {"role": "system", "content": "bake"},
        {"role": "user", "content": "negative"},
        {"role": "assistant", "content": "negative"},
        {"role": "user", "content": [{"type": "text", "text": "posi"}, {"type": "text", "text": "tive"}]},
    ]
    told = (await client.post(CHAT, json={"model": SENTIMENT, "messages": messages})).json()
    assert told["choices"][0]["message"]["content"] == "positive"
    abstained = (await client.post(CHAT, json=chat(system=NOTHING_FITS))).json()
    message = abstained["choices"][0]["message"]
    assert message["content"] is None
    assert message["refusal"].startswith("out_of_scope: ")
    assert abstained["model"] == "mole/auto"


async def test_logprobs_are_the_labels(client: httpx.AsyncClient):
    told = (await client.post(CHAT, json=chat(logprobs=True, top_logprobs=2))).json()
    (token,) = told["choices"][0]["logprobs"]["content"]
    assert token["token"] == "positive"
    assert token["logprob"] == pytest.approx(math.log(1 / 3))
    assert bytes(token["bytes"]) == b"positive"
    assert len(token["top_logprobs"]) == 2
    told = (await client.post(CHAT, json=chat(logprobs=True))).json()
    assert told["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


async def test_entities_are_a_json_object(client: httpx.AsyncClient):
    told = (await client.post(CHAT, json=chat("Maria writes", f"mole/{files.PII}"))).json()
    (entity,) = json.loads(told["choices"][0]["message"]["content"])["entities"]
    assert (entity["type"], entity["value"], entity["start"]) == ("NAME", "Maria", 0)


async def test_a_stream_is_events_that_end(client: httpx.AsyncClient):
    given = chat(stream=True, stream_options={"include_usage": True}, logprobs=True)
    answer = await client.post(CHAT, json=given)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
    assert last == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:3]] == [
        {"role": "assistant", "content": ""}, {"content": "positive"}, {},
    ]  # fmt: skip
    assert chunks[1]["choices"][0]["logprobs"]["content"][0]["token"] == "positive"
    assert chunks[2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[3]["usage"]["total_tokens"] == 0
    refused = await client.post(CHAT, json=chat(stream=True, system=NOTHING_FITS))
    assert '"refusal":"out_of_scope' in refused.text
    assert '"usage"' not in refused.text


async def test_models(client: httpx.AsyncClient):
    told = (await client.get("/v1/models")).json()
    assert told["object"] == "list"
    assert [card["id"] for card in told["data"]][:2] == ["mole/auto", SENTIMENT]
    assert all(card["created"] > 1_700_000_000 for card in told["data"])
    assert (await client.get(f"/v1/models/{SENTIMENT}")).json()["id"] == SENTIMENT
    assert (await client.get("/v1/models/mole/auto")).json()["id"] == "mole/auto"
    message = error(await client.get("/v1/models/gpt-4o"), 404, "invalid_request_error", "model_not_found")
    assert "'gpt-4o'" in message


async def test_classify_in_vllms_form(client: httpx.AsyncClient):
    answer = await client.post("/v1/classify", json={"model": SENTIMENT, "input": ["neutral", "positive"]})
    told = answer.json()
    assert (told["object"], told["model"]) == ("list", SENTIMENT)
    assert told["id"] == "classify-" + answer.headers["x-request-id"]
    assert [(d["index"], d["label"], d["num_classes"]) for d in told["data"]] == [
        (0, "neutral", 3), (1, "positive", 3),
    ]  # fmt: skip
    assert told["data"][0]["probs"] == pytest.approx([1 / 3] * 3)
    one = (await client.post("/v1/classify", json={"model": "mole/auto", "input": "positive"})).json()
    assert [d["label"] for d in one["data"]] == ["positive"]
    told = (
        await client.post(
            "/v1/classify", json={"model": "mole/auto", "input": "x", "description": NOTHING_FITS}
        )
    ).json()
    assert [(d["label"], d["probs"], d["num_classes"]) for d in told["data"]] == [(None, [], 0)]


async def test_classify_in_infinitys_form(client: httpx.AsyncClient):
    body = {"model": SENTIMENT, "input": ["neutral", "positive"], "raw_scores": False}
    told = (await client.post("/v1/classify", json=body)).json()
    assert (told["object"], told["model"]) == ("classify", SENTIMENT)
    for labels in told["data"]:
        assert {label["label"] for label in labels} == {"negative", "neutral", "positive"}
        scores = [label["score"] for label in labels]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)
    assert [found["result"] for found in told["mole"]] == ["neutral", "positive"]
    body = {"model": "default/not-specified", "input": "x", "raw_scores": False, "description": NOTHING_FITS}
    assert (await client.post("/v1/classify", json=body)).json()["data"] == [[]]
    answer = await client.post("/v1/classify", json=body | {"raw_scores": True})
    error(answer, 400, "invalid_request_error", "invalid_request")
    assert answer.json()["error"]["param"] == "raw_scores"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (chat(model="gpt-4o"), 404, "model_not_found"),
        (chat(model="mole/a/b"), 404, "model_not_found"),
        (chat(""), 400, "invalid_request"),
        (chat("x" * 101), 413, "content_too_large"),
        (chat([{"type": "image_url", "image_url": {"url": "x"}}]), 400, "invalid_request"),
        (chat(n=2), 400, "invalid_request"),
        (chat(top_logprobs=21), 400, "invalid_request"),
        ({"model": "mole/auto"}, 400, "invalid_request"),
        ({"model": "mole/auto", "messages": []}, 400, "invalid_request"),
        ({"model": "mole/auto", "messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
async def test_mistakes_are_told_in_openais_form(client, body: Any, status: int, code: str):
    error(await client.post(CHAT, json=body), status, "invalid_request_error", code)


async def test_of_many_bad_messages_the_first_is_told(client: httpx.AsyncClient):
    answer = await client.post(CHAT, json={"model": "mole/auto", "messages": [{}] * 1000})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.0.role"


async def test_the_member_that_is_wrong_is_named(client: httpx.AsyncClient):
    answer = await client.post(CHAT, json=chat(n=2))
    assert answer.json()["error"]["param"] == "n"


async def test_faults_of_other_layers_are_told_so_too(client: httpx.AsyncClient):
    error(await client.get("/v1/nothing"), 404, "invalid_request_error", "not_found")
    error(await client.get(CHAT), 405, "invalid_request_error", "method_not_allowed")
    error(await client.post(CHAT, json=chat("x" * 6000)), 413, "invalid_request_error", "content_too_large")
    error(
        await client.post(CHAT, content=b"{", headers={"content-type": "text/plain"}),
        415, "invalid_request_error", "unsupported_media_type",
    )  # fmt: skip
    error(
        await client.get("/v1/models", headers={"x-much": "x" * 40_000}),
        431, "invalid_request_error", "request_header_fields_too_large",
    )  # fmt: skip
    problem = await client.get("/api/v1/nothing")
    assert problem.headers["content-type"] == "application/problem+json"


async def test_faults_of_the_fleet_can_be_tried_again(client: httpx.AsyncClient):
    error(await client.post(CHAT, json=chat(pool.FULL)), 503, "server_error", "overloaded")
    error(await client.post(CHAT, json=chat(pool.BREAK)), 500, "server_error", "internal_error")
    both = {"model": "mole/auto", "input": ["positive", pool.FULL]}
    error(await client.post("/v1/classify", json=both), 503, "server_error", "overloaded")

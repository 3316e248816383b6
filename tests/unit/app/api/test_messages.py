"""Bodies must say that they are JSON: a page that someone visits can make a browser send anything else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import application

SIMPLE = (
    None,
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
)
"""What browsers send across origins without asking first; None: no declaration at all, as for a Blob."""
BODY = b'{"text": "x", "items": [{"text": "x"}], "request_id": "r", "score": 1, "version": 1}'


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = application(tmp_path)
    async with serving(app) as found:
        await until(lambda: app.state.runtime.status == "ready")
        yield found


async def posts(client: httpx.AsyncClient) -> dict[str, dict[str, object]]:
    """Every path that takes a POST, and the answers that it declares."""
    document = (await client.get("/openapi.json")).json()
    return {path: found["post"]["responses"] for path, found in document["paths"].items() if "post" in found}


async def test_no_post_takes_what_a_foreign_page_can_send(client: httpx.AsyncClient) -> None:
    found = await posts(client)
    assert {"/api/v1/feedback", "/api/v1/jobs", "/v1/chat/completions"} <= found.keys()
    for path, responses in found.items():
        assert "415" in responses, path
        for declared in SIMPLE:
            headers = {} if declared is None else {"content-type": declared}
            answer = await client.post(path, content=BODY, headers=headers)
            assert answer.status_code == 415, (path, declared, answer.text)
            assert "-H 'Content-Type: application/json'" in answer.text


@pytest.mark.parametrize(
    "declared", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.mine+json"]
)
async def test_json_under_any_of_its_names_is_taken(client: httpx.AsyncClient, declared: str) -> None:
    for path in await posts(client):
        answer = await client.post(path, content=BODY, headers={"content-type": declared})
        assert answer.status_code != 415, (path, answer.text)


@pytest.mark.parametrize("declared", ["text/json", "text/plain+json", "x+json", "json"])
async def test_what_only_looks_like_json_is_not(client: httpx.AsyncClient, declared: str) -> None:
    answer = await client.post("/api/v1/feedback", content=BODY, headers={"content-type": declared})
    assert answer.status_code == 415

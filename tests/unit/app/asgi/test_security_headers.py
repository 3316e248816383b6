"""What every answer says to browsers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.asgi.security_headers import security_headers
from tests.stubs.serving import serving, until
from tests.unit.app.api.test_service import CLASSIFY, application

ORIGIN = "https://pages.example"


@pytest.mark.parametrize(
    "path", ["/api/v1/health", "/metrics", "/openapi.json", "/docs", "/nowhere", "/api/v1/tasks"]
)
async def test_every_answer_carries_them(tmp_path: Path, path: str) -> None:
    async with serving(application(tmp_path)) as client:
        answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'" if path in ("/docs", "/nowhere") else "default-src 'none'")
    assert "script-src" not in policy
    assert ("cache-control" in answer.headers) == (path not in ("/docs", "/nowhere"))


async def test_the_answer_to_a_text_is_never_a_page(tmp_path: Path) -> None:
    app = application(tmp_path)
    async with serving(app) as client:
        await until(lambda: app.state.runtime.status == "ready")
        refusals = [await client.get(CLASSIFY), await client.post(CLASSIFY, content="x")]
    assert [answer.status_code for answer in refusals] == [405, 415]
    assert {answer.headers["cache-control"] for answer in refusals} == {"no-store"}
    added = dict(security_headers("POST", CLASSIFY, 200, [(b"content-type", b"application/json")]))
    assert added == {
        b"x-content-type-options": b"nosniff",
        b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    }


def test_what_an_answer_sets_itself_stays() -> None:
    own = [(b"content-type", b"x"), (b"Content-Security-Policy", b"own"), (b"cache-control", b"public")]
    added = dict(security_headers("GET", "/", 200, own))
    assert b"content-security-policy" not in added
    assert added[b"x-frame-options"] == b"DENY"


async def test_the_documentation_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with serving(application(tmp_path)) as client:
        page = (await client.get("/docs")).text
        assert "http" not in page
        assert "<script>" not in page
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png", "start.js"):
            found = await client.get("/docs/" + name)
            assert (found.status_code, f"docs/{name}" in page) == (200, True)
            assert found.headers["content-type"].split("/")[0] in ("text", "image")
        assert (await client.get("/docs/consts.py")).status_code == 404
        assert (await client.get("/docs/..%2Fconsts.py")).status_code == 404
        assert (await client.get("/redoc")).status_code == 404


async def asked(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post(CLASSIFY, json={"text": "x"}, headers=headers)


async def test_cors_is_off_unless_set(tmp_path: Path) -> None:
    async with serving(application(tmp_path)) as client:
        preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        assert (await client.options(CLASSIFY, headers=preflight)).status_code == 405
        answer = await asked(client, Origin=ORIGIN)
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_cors_lets_in_the_origins_that_are_named(tmp_path: Path) -> None:
    app = application(tmp_path, cors_origins=f"{ORIGIN}, https://b.example", require_api_key=True)
    async with serving(app) as client:
        preflight = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        answer = await client.options(CLASSIFY, headers=preflight)  # without a key: browsers send none
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers
        # OpenAI's client for browsers sends some of its own with each request.
        preflight["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-lang"
        assert (await client.options(CLASSIFY, headers=preflight)).status_code == 200
        refused = await asked(client, Origin=ORIGIN)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
        assert "X-Request-ID" in refused.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in refused.headers
        other = await asked(client, Origin="https://evil.example")
        assert "access-control-allow-origin" not in other.headers
        preflight["Origin"] = "https://evil.example"
        assert (await client.options(CLASSIFY, headers=preflight)).status_code == 400

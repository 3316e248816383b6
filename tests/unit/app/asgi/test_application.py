"""The whole application below a mount point."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.stubs.serving import until
from tests.unit.app.api.test_service import CLASSIFY, application

ROOT = "/mole"


async def test_below_a_root_path_everything_is_as_without_one(tmp_path: Path) -> None:
    app = application(tmp_path, max_body_bytes=2000)
    line = b'{"text":"positive"}\n'
    transport = httpx.ASGITransport(app, root_path=ROOT)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service" + ROOT) as client,
    ):
        await until(lambda: app.state.runtime.status == "ready")
        answer = await client.post(CLASSIFY, json={"text": "positive"})
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "x-frame-options" not in answer.headers
        lines = {"Content-Type": "application/x-ndjson"}
        job = await client.post("/api/v1/jobs", content=line * 200, headers=lines)
        assert (job.status_code, job.json()["total"]) == (202, 200)
        # What the caller's client makes of it: the path as the caller knows it, in front of the proxy.
        assert job.headers["location"] == f"{ROOT}/api/v1/jobs/{job.json()['job_id']}"
        looked = await client.get(job.url.join(job.headers["location"]))
        assert (looked.status_code, looked.json()["job_id"]) == (200, job.json()["job_id"])
        model = {"model": "nowhere", "messages": [{"role": "user", "content": "x"}]}
        assert "error" in (await client.post("/v1/chat/completions", json=model)).json()
        page = await client.get("/docs")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")

"""The other sides of benchmarks/gateway.py: a worker that takes a fixed time, and a bare reverse proxy.

python benchmarks/gateway_parts.py worker PORT MODEL TASK LABEL; … proxy PORT URL
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp
import orjson
import uvloop
from aiohttp import web

HOP_BY_HOP = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "content-length"})


def json(data: Any) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json")


class StubWorker:
    """Answers as a worker, and as an OpenAI-style endpoint, after `delay_s`; POST /delay/MS changes it."""

    def __init__(self, model: str, task: str, label: str) -> None:
        self.delay_s = 0.0
        self.model, self.task, self.label = model, task, label

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/delay/{ms}", self.set_delay)
        app.router.add_post("/api/v1/expert/classify", self.classify)
        app.router.add_get("/api/v1/expert/tasks", self.tasks)
        app.router.add_get("/api/v1/health/ready", self.ready)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    async def set_delay(self, request: web.Request) -> web.Response:
        self.delay_s = float(request.match_info["ms"]) / 1000
        return json({})

    async def classify(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        await self.pause()
        answer = {
            "request_id": asked.get("request_id"), "result": self.label, "confidence": 0.7,
            "worker_id": "stub", "model_key": self.model, "adapter_name": None, "processing_time_ms": 1.0,
        }  # fmt: skip
        return json(answer)

    async def tasks(self, _request: web.Request) -> web.Response:
        served = {"task_key": self.task, "languages": None, "labels": [self.label], "adapters": []}
        return json({"worker_id": "stub", "model_key": self.model, "tasks": [served]})

    async def ready(self, _request: web.Request) -> web.Response:
        state = {"status": "ready", "worker_id": "stub", "progress": 1.0, "queue_depth": 0}
        return json({**state, "model_key": self.model})

    async def chat(self, request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        await self.pause()
        message = {"role": "assistant", "content": self.label}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        told = {"id": "x", "object": "chat.completion", "created": 1, "model": "stub"}
        return json({**told, "choices": [choice], "usage": usage})

    async def pause(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)


def proxy(url: str) -> web.Application:
    """Passes a request on and its answer back, and does nothing else."""
    app = web.Application()

    async def session(_app: web.Application) -> Any:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as app["session"]:
            yield

    async def forward(request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        body = await request.read()
        async with request.app["session"].request(
            request.method, url + request.path_qs, headers=headers, data=body
        ) as answer:
            content = await answer.read()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=content)

    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


def main() -> None:
    role, port, *rest = sys.argv[1:]
    app = StubWorker(*rest).application() if role == "worker" else proxy(*rest)
    loop = uvloop.new_event_loop()  # as uvicorn has
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()

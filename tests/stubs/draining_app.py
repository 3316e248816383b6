"""Nothing but a drain around requests without an end: uvicorn tests.stubs.draining_app:app."""

from __future__ import annotations

import asyncio
import os

from starlette.types import Receive, Scope, Send

from moe_router.drain import Drain
from moe_router.errors import NotReadyError

drain = Drain()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """POST waits for ever, GET /stream sends for ever, another GET tells how many are waited for."""
    if scope["type"] == "lifespan":
        await receive()
        drain.install(float(os.environ["STUB_DRAIN_S"]))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("the application has ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/stream":
        await answer(send, 200, b"x" * 2**20, more=True)
        while True:
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
    elif scope["method"] == "POST":
        try:
            with drain.request():
                await asyncio.Event().wait()
        except NotReadyError as error:
            await answer(send, error.status, str(error).encode())
    else:
        await answer(send, 200, str(drain.in_flight).encode())


async def answer(send: Send, status: int, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})

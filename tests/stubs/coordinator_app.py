"""The real coordinator application over stub gating, as a process."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse

from app.main import create_app
from tests.stubs.gating import StubGating

app = create_app(load_gating=StubGating.load)


async def tasks(_request: Request) -> JSONResponse:
    """How many tasks the event loop has, this one's included."""
    return JSONResponse(len(asyncio.all_tasks()))


app.add_route("/docs/tests/tasks", tasks)  # below a path that needs no key

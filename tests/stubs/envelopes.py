"""What the envelopes of both services are asked to do alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from moe_router.drain import Drain
from tests.stubs.serving import until


class Scene(Protocol):
    """One request through an envelope, message by message."""

    sent: list[Any]
    drain: Drain

    def run(self, *messages: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Plays it to its end."""


SceneT = TypeVar("SceneT", bound=Scene)


async def ending_halfway(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


async def ended_after_its_answer_began(make: Callable[[Any], SceneT], *messages: dict[str, Any]) -> SceneT:
    """A request whose answer has begun when the service ends; nothing may follow what is sent."""
    scene = make(ending_halfway)
    request = asyncio.create_task(scene.run(*messages))
    await until(lambda: bool(scene.sent))
    scene.drain.draining = True
    request.cancel()
    await request
    assert [message["type"] for message in scene.sent] == ["http.response.start"]
    return scene

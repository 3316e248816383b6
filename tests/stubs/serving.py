"""An application in this process, with its lifespan, asked without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from moe_router.mapping import WorkerMapping
from moe_router.members import ExpertMembers
from moe_router.registry import Registry
from tests.stubs import files


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


async def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def registry() -> Registry:
    return Registry.model_validate(files.registry())


def question(text: str, task_key: str = files.SENTIMENT, request_id: str | None = None) -> ExpertMembers:
    """What the coordinator asks of an expert."""
    asked: ExpertMembers = {
        "task_key": task_key, "text": text, "language": "en", "return_probabilities": False,
    }  # fmt: skip
    if request_id is not None:
        asked["request_id"] = request_id
    return asked


def mapping(*urls: str) -> WorkerMapping:
    return WorkerMapping.model_validate(files.mapping(*urls))

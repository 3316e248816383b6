"""Load for tests: requests at a rate, or by so many clients, and how they were answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Load:
    """Everything that was answered."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of the answers with status 200."""
    without_retry_after: int = 0
    failures: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        ranked = sorted(self.seconds)
        return ranked[min(int(len(ranked) * share), len(ranked) - 1)]

    def __str__(self) -> str:
        if not self.seconds:
            return str(dict(self.statuses))
        told = ", ".join(f"p{q * 100:g} {self.quantile(q) * 1000:.0f} ms" for q in (0.5, 0.95, 0.99, 1))
        return f"{dict(self.statuses)}, {told}"

    async def ask(
        self, session: aiohttp.ClientSession, url: str, body: Any, headers: dict[str, str] | None = None
    ) -> int | str:
        began = time.monotonic()
        status: int | str
        try:
            async with session.post(url, json=body, headers=headers) as answer:
                text = await answer.text()
                status = answer.status
                if status == 200:
                    self.seconds.append(time.monotonic() - began)
                else:
                    self.without_retry_after += "retry-after" not in answer.headers
                    self.failures.append(f"{status}: {text}"[:300])
        except aiohttp.ClientError as error:
            status = type(error).__name__
            self.failures.append(f"{status}: {error}")
        self.statuses[status] += 1
        return status


def session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0),
        timeout=aiohttp.ClientTimeout(total=120),
    )


async def at_rate(load: Load, url: str, body: Any, per_second: float, until: Callable[[], bool]) -> None:
    """An open loop: a slow answer holds no later request back."""
    async with session() as client, asyncio.TaskGroup() as group:
        due = time.monotonic()
        while not until():
            group.create_task(load.ask(client, url, body))
            due += 1 / per_second
            await asyncio.sleep(max(due - time.monotonic(), 0))


async def by_clients(
    load: Load,
    url: str,
    body: Any,
    clients: int,
    until: Callable[[], bool],
    headers: dict[str, str] | None = None,
    pause_s: float = 0.0,
    pause_refused_s: float = 0.2,
) -> None:
    """A closed loop: each client asks again when it is answered, and waits a little where it is refused."""

    async def client(own: aiohttp.ClientSession) -> None:
        while not until():
            status = await load.ask(own, url, body, headers)
            await asyncio.sleep(pause_s if status == 200 else pause_refused_s)

    async with session() as own, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(own))

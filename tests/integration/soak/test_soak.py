"""Mixed load on one coordinator: what it holds afterwards is what it held before.

Half a minute by default, ten minutes with `--full` (`make soak`), which writes benchmarks/results/soak.*.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from benchmarks import reporting
from tests.stubs import files, pool
from tests.stubs.load import session
from tests.stubs.processes import Process, Stage

pytestmark = pytest.mark.slow
API = "/api/v1"
FIXED = {"task": files.SENTIMENT, "language": "en", "via": "expert"}
CLIENTS = 8
WARM_UP_S = 8.0
SETTLE_S = 30.0
HEDGE_AFTER_S = "0.02"
"""Short enough that some calls are hedged, and most are not."""
MOST_MIB_A_MINUTE = {False: 40.0, True: 1.0}
"""Growth of resident memory over the second half; caches, the database's among them, fill for some minutes.

The short form only notices a leak of a few kilobytes a request.
"""
SPARE_HANDLES = 15
"""The database's pool may have opened more connections meanwhile, of three files each."""


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    found = Stage(tmp_path)
    yield found
    found.stop()


def start(stage: Stage) -> Process:
    workers = [stage.worker(), stage.worker()]
    files.write(stage.folder, files.mapping(*(worker.url for worker in workers)))
    for worker in workers:
        worker.wait_for(f"{API}/health/ready")
    coordinator = stage.coordinator(MOLE_HEDGE_AFTER_SECONDS=HEDGE_AFTER_S)
    coordinator.wait_for(f"{API}/health/ready")
    coordinator.wait_healthy(2)
    return coordinator


class Mix:
    """What callers do, right and wrong; counts the statuses."""

    def __init__(self, url: str, client: aiohttp.ClientSession, seed: int) -> None:
        self._url, self._client = url + API, client
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self.seen: Counter[str] = Counter()
        self._acts: list[Callable[[], Awaitable[None]]] = [
            self.classify, self.classify, self.classify, self.gated, self.batch, self.route, self.mistakes,
            self.look, self.judge, self.leave, self.job,
        ]  # fmt: skip

    async def act(self) -> None:
        await self._random.choice(self._acts)()

    async def ask(self, method: str, path: str, wanted: int, body: Any = None, **headers: str) -> Any:
        async with self._client.request(method, self._url + path, json=body, headers=headers) as answer:
            told = await answer.read()
            self.seen[f"{method} {path.split('/')[1]} {answer.status}"] += 1
            assert answer.status == wanted, told[:300]
            return await answer.json(content_type=None) if told else None

    async def classify(self) -> None:
        await self.ask("POST", "/classify", 200, {"text": "positive", "options": FIXED})

    async def gated(self) -> None:
        await self.ask("POST", "/classify", 200, {"text": f"neutral {self._random.random()}"})

    async def batch(self) -> None:
        items = [{"text": "positive", "options": FIXED}, {"text": ""}, {"text": pool.FULL, "options": FIXED}]
        await self.ask("POST", "/classify/batch", 200, {"items": items})

    async def route(self) -> None:
        await self.ask("POST", "/route", 200, {"text": "neutral"})

    async def mistakes(self) -> None:
        await self.ask("POST", "/classify", 400, {"text": "x", "options": {"task": "no/such"}})
        await self.ask("POST", "/classify", 413, {"text": "x" * 60_000})
        await self.ask("GET", "/jobs/" + "0" * 32, 404)

    async def look(self) -> None:
        for path in ("/workers", "/stats", "/tasks", "/health/ready"):
            await self.ask("GET", path, 200)

    async def judge(self) -> None:
        name = f"soak-{self._random.random()}"
        await self.ask("POST", "/classify", 200, {"text": "x", "options": FIXED}, **{"X-Request-ID": name})
        await self.ask("POST", "/feedback", 202, {"request_id": name, "score": 1.0})

    async def leave(self) -> None:
        """Goes before the answer."""
        body = {"text": pool.WAIT, "options": FIXED}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await self.ask("POST", "/classify", 200, body)
        self.seen["left"] += 1

    async def job(self) -> None:
        items = [{"text": "positive", "options": FIXED}] * 3
        job = (await self.ask("POST", "/jobs", 202, {"items": items}))["job_id"]
        if self._random.random() < 0.5:
            await self.ask("DELETE", f"/jobs/{job}", 200)
        await self.ask("GET", f"/jobs/{job}", 200)


async def load(coordinator: Process, seconds: float) -> tuple[Counter[str], list[tuple[float, float]]]:
    """Loads it; what was answered, and its memory (seconds, MiB) over that time."""
    ends, memory = time.monotonic() + seconds, []
    seen: Counter[str] = Counter()

    async def caller(client: aiohttp.ClientSession, seed: int) -> None:
        mix = Mix(coordinator.url, client, seed)
        while time.monotonic() < ends:
            await mix.act()
        seen.update(mix.seen)

    async def watch() -> None:
        while time.monotonic() < ends:
            memory.append((time.monotonic(), coordinator.resident_mib))
            await asyncio.sleep(0.5)

    async with session() as client, asyncio.TaskGroup() as group:
        group.create_task(watch())
        for seed in range(CLIENTS):
            group.create_task(caller(client, seed))
    return seen, memory


def held(coordinator: Process) -> tuple[int, int, int]:
    """Tasks, sockets and other file handles."""
    tasks = httpx.get(f"{coordinator.url}/docs/tests/tasks", timeout=10, trust_env=False).json()
    open_files = coordinator.files
    sockets = sum(name.startswith("socket:") for name in open_files)
    return tasks, sockets, len(open_files) - sockets


async def settled(coordinator: Process, most: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
    """What it holds when nobody asks any more: the least of some seconds, or as soon as it is that little."""
    ends = time.monotonic() + SETTLE_S
    least = await asyncio.to_thread(held, coordinator)
    while time.monotonic() < ends:
        if most is not None and all(now <= before for now, before in zip(least, most, strict=True)):
            break
        await asyncio.sleep(0.5)
        now = await asyncio.to_thread(held, coordinator)
        least = (min(least[0], now[0]), min(least[1], now[1]), min(least[2], now[2]))
        if most is None and time.monotonic() > ends - SETTLE_S + 8:
            break
    return least


def slope(memory: list[tuple[float, float]]) -> float:
    """MiB a minute, by least squares over the second half."""
    later = memory[len(memory) // 2 :]
    middle_at = sum(at for at, _ in later) / len(later)
    middle = sum(mib for _, mib in later) / len(later)
    over = sum((at - middle_at) * (mib - middle) for at, mib in later)
    return 60 * over / sum((at - middle_at) ** 2 for at, _ in later)


def hedges(coordinator: Process) -> dict[str, int]:
    """How many calls were hedged, by whose answer was taken."""
    text = httpx.get(f"{coordinator.url}/metrics", timeout=10, trust_env=False).text
    return {
        outcome: int(float(count))
        for outcome, count in re.findall(r'^mole_hedges_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE)
    }


@dataclass(frozen=True)
class Findings:
    """What the load did, and what the coordinator held before and after it."""

    memory: list[tuple[float, float]]
    growth: float
    before: tuple[int, int, int]
    after: tuple[int, int, int]
    seen: Counter[str]
    hedges: dict[str, int]

    def table(self) -> str:
        rows = [
            ("seconds of load", f"{self.memory[-1][0] - self.memory[0][0]:.0f}"),
            ("exchanges", f"{sum(self.seen.values()):,}"),
            ("resident memory, begin and end", f"{self.memory[0][1]:.1f} MiB, {self.memory[-1][1]:.1f} MiB"),
            ("its slope over the second half", f"{self.growth:+.2f} MiB a minute"),
            *(
                (f"{name}, before and after", f"{was}, {now}")
                for name, was, now in zip(("tasks", "sockets", "files"), self.before, self.after, strict=True)
            ),
            ("hedges", ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.hedges.items()))),
            ("answers", ", ".join(f"{name} × {count:,}" for name, count in sorted(self.seen.items()))),
        ]
        return "\n".join(
            ["| what | found |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        )

    def write(self) -> None:
        began = self.memory[0][0]
        minutes = [(round(at - began), round(mib, 1)) for at, mib in self.memory[::60]]
        result = {
            "environment": {**reporting.environment(), "command": "make soak"},
            "memory_mib": {"by_second": minutes, "slope_a_minute": round(self.growth, 3)},
            "tasks_sockets_files": {"before": self.before, "after": self.after},
            "exchanges": dict(sorted(self.seen.items())),
            "hedges": self.hedges,
        }
        reporting.write("soak", result, self.table())


@pytest.mark.timeout(900)
async def test_nothing_is_left_behind(stage: Stage, full: bool) -> None:
    coordinator = start(stage)
    await load(coordinator, WARM_UP_S)
    tasks, sockets, handles = await settled(coordinator)
    seen, memory = await load(coordinator, 600 if full else 22)
    after = await settled(coordinator, (tasks, sockets, handles + SPARE_HANDLES))
    growth = slope(memory)
    found = Findings(memory, growth, (tasks, sockets, handles), after, seen, hedges(coordinator))
    print("\n" + found.table())
    if full:
        found.write()
    assert len(seen) >= 12  # all of the mix came
    assert sum(found.hedges.values()) > 0
    assert after[0] <= tasks
    assert after[1] <= sockets
    assert after[2] <= handles + SPARE_HANDLES
    assert growth <= MOST_MIB_A_MINUTE[full]

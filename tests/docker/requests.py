"""Requests to a running stack, one by one or as load."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from tests.docker.engine import API, COORDINATOR, wait_for

ASKED = {
    "text": "Der Umsatz stieg im dritten Quartal um zwölf Prozent.",
    "description": "Is this good or bad news for investors?",
    "options": {"via": "expert"},
}
"""For the LLM expert, even where a probe could answer."""
TASK = "finance/sentiment_analysis"
LABELS = ("negative", "neutral", "positive")


def get(path: str) -> Any:
    return json.loads(get_text(path))


def get_text(path: str) -> str:
    """Raises httpx.HTTPStatusError where the status is no success."""
    answer = httpx.get(COORDINATOR + path, timeout=30, trust_env=False)
    answer.raise_for_status()
    return answer.text


def classify() -> httpx.Response:
    return post("/classify", ASKED)


def post(path: str, body: object) -> httpx.Response:
    timeout = httpx.Timeout(120.0, connect=10.0)
    return httpx.post(COORDINATOR + API + path, json=body, timeout=timeout, trust_env=False)


def wait_until_answered(worker_id: str | None = None) -> dict[str, Any]:
    """The first answer with a label, of that worker where one is named."""

    def look() -> dict[str, Any] | None:
        answer = classify()
        body: dict[str, Any] = answer.json()
        right = answer.status_code == 200 and worker_id in (None, body["worker_id"])
        return body if right else None

    found: dict[str, Any] = wait_for(f"an answer of {worker_id or 'any worker'}", look)
    return found


@dataclass
class Load:
    """Threads that ask without a pause, each request on a connection of its own."""

    threads: int = 4
    statuses: Counter[int] = field(default_factory=Counter)
    unclean: list[str] = field(default_factory=list)
    """Answers that are neither right nor a 503 as the contract has it."""
    refused: int = 0
    """Connections that nobody took."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._running = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = classify()
            except (httpx.ConnectError, httpx.ConnectTimeout):  # nobody there: nothing was taken
                self.refused += 1
                self._stop.wait(0.2)
                continue
            except httpx.TransportError as error:
                self.unclean.append(f"cut: {error!r}")
                continue
            self.statuses[answer.status_code] += 1
            self._judge(answer)

    def _judge(self, answer: httpx.Response) -> None:
        if answer.status_code == 200:
            right = answer.json()["result"] in LABELS
        else:
            problem = answer.headers["content-type"].startswith("application/problem+json")
            right = answer.status_code == 503 and problem and "retry-after" in answer.headers
            self._stop.wait(0.5)  # asking on and on would only slow the restart down
        if not right:
            self.unclean.append(f"{answer.status_code}: {answer.text[:300]}")

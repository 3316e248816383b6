"""A coordinator's HTTP side with answers set by the test, on a real port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

ANSWER: dict[str, Any] = {
    "request_id": "r-1",
    "language": "de",
    "domain": "finance",
    "task": "finance/sentiment_analysis",
    "result": "positive",
    "confidence": 0.91,
    "probabilities": {"negative": 0.03, "neutral": 0.06, "positive": 0.91},
    "routing_path": [
        {"step": "language", "choice": "de", "probability": 0.99, "ms": 0.1},
        {"step": "domain", "choice": "finance", "probability": 0.97, "ms": 0.2},
        {"step": "task", "choice": "finance/sentiment_analysis", "probability": 0.95, "ms": 0.2},
        {"step": "expert", "choice": "fin-sentiment", "probability": 0.91, "ms": 120.0},
    ],
    "worker_id": "worker-0",
    "model_key": "gemma-3-270m",
    "processing_time_ms": 131.5,
    "timings_ms": {
        "language": 0.1,
        "encode": 9.5,
        "domain": 0.2,
        "task": 0.2,
        "worker": 120.0,
        "total": 131.5,
    },
}
ABSTAINED: dict[str, Any] = ANSWER | {
    "task": None,
    "result": None,
    "probabilities": None,
    "confidence": 0.1,
    "worker_id": None,
    "model_key": None,
    "abstained": {
        "reason": "out_of_scope",
        "detail": "No task fits.",
        "nearest_tasks": ["general/topic_classification"],
    },
}


@dataclass
class StubCoordinator:
    """Answers every request with `status` and `body`, and remembers what was asked."""

    url: str = ""
    status: int = 200
    body: bytes = json.dumps(ANSWER).encode()
    headers: dict[str, str] = field(default_factory=dict)
    breaks: int = 0
    """connections that are closed without an answer"""
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)

    def answers(self, body: Any, status: int = 200, **headers: str) -> None:
        self.status, self.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def answer() -> dict[str, Any]:
    return ANSWER


@pytest.fixture
def abstained() -> dict[str, Any]:
    return ABSTAINED


@pytest.fixture
def coordinator() -> Iterator[StubCoordinator]:
    stub = StubCoordinator()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            stub.asked.append((self.command, self.path, self._body(), dict(self.headers)))
            if stub.breaks:
                stub.breaks -= 1
                self.close_connection = True
                return
            self.send_response(stub.status)
            for name, value in {"Content-Length": str(len(stub.body)), **stub.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(stub.body)

        def _body(self) -> Any:
            if self.headers.get("Transfer-Encoding") != "chunked":
                sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                return json.loads(sent) if sent else None
            sent = b""
            while size := int(self.rfile.readline(), 16):
                sent += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return sent  # JSON Lines, as they came

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield stub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("MOLE_URL", "MOLE_API_KEY", "CONFIG_PATH", "EXPERT_REGISTRY_PATH", "EXPERT_MAPPING_PATH")
    for name in (*names, "WORKER_MODEL_KEY"):
        monkeypatch.delenv(name, raising=False)

"""A worker whose model is at a server that comes up after it."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from expert_worker import service as module
from expert_worker.main import create_app
from expert_worker.settings import Settings
from tests.stubs import files
from tests.stubs.serving import serving, until


class ModelServer(ThreadingHTTPServer):
    """Lists its model at once, as llama.cpp's does, and answers once that is loaded."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.loaded = threading.Event()
        self.refused = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": "base"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.loaded.is_set():
            self._answer(503, {"error": "Loading model"})
            self.server.refused.set()
            return
        told = {" negative": math.log(0.2), " positive": math.log(0.7)}
        self._answer(200, {"choices": [{"logprobs": {"top_logprobs": [told]}}]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the test's screen."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(port: int) -> Iterator[ModelServer]:
    with ModelServer(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


async def test_a_worker_waits_for_its_model_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    port = free_port()
    base = {"hf_name": "base", "engine": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
    task = {"base_model_key": files.MODEL, "label_set": ["negative", "positive"]}
    registry = {"base_models": {files.MODEL: base}, "tasks": {files.SENTIMENT: task}}
    files.write(tmp_path, files.mapping("http://x"), registry)
    app = create_app(Settings(model_key=files.MODEL, config_path=tmp_path))
    async with serving(app) as client:
        service = app.state.service
        await until(lambda: f"{port}/v1 gave no answer: ConnectError" in (service.detail or ""))
        answer = await client.get("/api/v1/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        with running(port) as server:
            await until(server.refused.is_set)
            await until(lambda: "HTTPStatusError 503" in (service.detail or ""))
            assert service.status == "loading"
            server.loaded.set()
            await until(lambda: service.status == "ready")
            assert (await client.get("/api/v1/health/ready")).json()["detail"] is None
            asked = {"task_key": files.SENTIMENT, "text": "good", "language": "en"}
            found = await client.post("/api/v1/expert/classify", json=asked)
            assert found.json()["result"] in task["label_set"]


async def test_a_worker_that_waits_for_its_model_server_stops_at_once(tmp_path: Path) -> None:
    base = {"hf_name": "base", "engine": "openai", "base_url": f"http://127.0.0.1:{free_port()}/v1"}
    registry = {**files.registry(), "base_models": {files.MODEL: base}}
    files.write(tmp_path, files.mapping("http://x"), registry)
    app = create_app(Settings(model_key=files.MODEL, config_path=tmp_path))
    async with serving(app):
        await until(lambda: "gave no answer" in (app.state.service.detail or ""))
    assert app.state.service.status == "loading"

"""A worker that fails as it is told: python -m tests.stubs.faulty_worker PORT [MODE [MODEL]].

Its health is always well, so that only real calls can find the fault out. POST /mode/NAME changes
the mode; GET /seen tells how many calls of the expert came and how many of them broke off.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

TASKS = ["finance/sentiment_analysis", "finance/pii_detection", "social/tone", "general/twin"]
MODES = (
    "ok", "slow", "hang", "reset", "error", "unavailable", "overloaded", "garbage", "wrong_label", "nan",
    "wrong_offsets", "truncated", "drip", "other_model", "not_http", "unauthorized", "missing_field", "huge",
)  # fmt: skip


class FaultyWorker:
    def __init__(self, mode: str, model: str) -> None:
        self.mode = mode
        self.model = model
        self.seen = 0
        self.broken_off = 0
        self.headers: dict[str, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                method, path, body = await self._read(reader)
                await self._answer(method, path, body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if path.endswith("/classify"):
            self.headers = headers
        return method, path, await reader.readexactly(int(headers.get("content-length", 0)))

    async def _answer(
        self, method: str, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if path.startswith("/mode/"):
            self.mode = path.removeprefix("/mode/")
            await _send(writer, 200, {"mode": self.mode})
        elif path == "/seen":
            state = {"seen": self.seen, "broken_off": self.broken_off, "headers": self.headers}
            await _send(writer, 200, state)
        elif path.endswith("/health/ready"):
            await _send(writer, 200, self._health())
        elif path.endswith("/expert/tasks"):
            served = [{"task_key": k, "languages": None, "labels": [], "adapters": []} for k in TASKS]
            await _send(writer, 200, {"worker_id": "w", "model_key": self.model, "tasks": served})
        else:
            self.seen += 1
            await self._classify(json.loads(body), reader, writer)

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ready",
            "worker_id": "w",
            "model_key": self.model,
            "progress": 1.0,
            "queue_depth": 0,
        }

    async def _classify(  # noqa: C901 - one case a fault
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer = self._good(request)
        match self.mode:
            case "ok":
                await _send(writer, 200, answer)
            case "slow":
                await asyncio.sleep(0.3)
                await _send(writer, 200, answer)
            case "hang":
                if not await reader.read(1):
                    self.broken_off += 1
                    raise ConnectionResetError
            case "reset":
                writer.transport.abort()
                raise ConnectionResetError
            case "error":
                await _send(writer, 500, {"oops": True})
            case "unavailable":
                await _send(writer, 503, _problem("not-ready"), "Retry-After: 2\r\n")
            case "overloaded":
                await _send(writer, 503, _problem("overloaded"), "Retry-After: 1\r\n")
            case "unauthorized":
                await _send(writer, 401, _problem("unauthorized"))
            case "missing_field":
                await _send(writer, 400, _problem("missing-field"))
            case "garbage":
                await _send_raw(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html>!")
            case "not_http":
                await _send_raw(writer, b"SSH-2.0-OpenSSH_9.6\r\n")
                raise ConnectionResetError
            case "huge":
                await _send(writer, 200, {**answer, "raw_response": "x" * (17 * 2**20)})
            case "truncated":
                await _send_raw(writer, b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"result":')
                raise ConnectionResetError
            case "drip":
                await _drip(writer, json.dumps(answer).encode())
            case _:
                await _send(writer, 200, {**answer, **_twist(self.mode)})

    def _good(self, request: dict[str, Any]) -> dict[str, Any]:
        text = request["text"]
        extraction = request["task_key"].endswith("pii_detection")
        entity = {"type": "NAME", "start": 0, "end": len(text), "value": text, "confidence": 0.7}
        return {
            "result": "entities" if extraction else "positive",
            "entities": [entity] if extraction else None,
            "confidence": 0.7,
            "worker_id": "w",
            "model_key": self.model,
            "adapter_name": None,
            "processing_time_ms": 1.0,
        }


def _twist(mode: str) -> dict[str, Any]:
    entity = {"type": "NAME", "start": 1, "end": 2, "value": "not that", "confidence": 0.7}
    return {
        "wrong_label": {"result": "purple"},
        "nan": {"confidence": float("nan")},
        "wrong_offsets": {"result": "entities", "entities": [entity]},
        "other_model": {"model_key": "another"},
    }[mode]


def _problem(slug: str) -> dict[str, Any]:
    return {"type": f"/problems/{slug}", "title": "x", "status": 503, "detail": f"{slug} it is"}


async def _send(writer: asyncio.StreamWriter, status: int, data: Any, extra: str = "") -> None:
    body = json.dumps(data).encode()
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    )
    await _send_raw(writer, head.encode() + body)


async def _send_raw(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _drip(writer: asyncio.StreamWriter, body: bytes) -> None:
    await _send_raw(writer, f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    for byte in body:
        await _send_raw(writer, bytes([byte]))
        await asyncio.sleep(0.2)


async def main(port: int, mode: str, model: str) -> None:
    server = await asyncio.start_server(FaultyWorker(mode, model).serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main(int(given[0]), given[1] if given[1:] else "ok", given[2] if given[2:] else "tiny"))

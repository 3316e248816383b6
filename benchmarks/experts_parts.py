"""What benchmarks/experts.py measures against: the servers, and the experts that ours serves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import torch

from moe_router.experts.expert_file import NAME, ExpertFile
from moe_router.experts.prompting import load_template
from moe_router.training.experts.lora import LoraModel, LoraShape

MODEL = "gemma-3-270m"
TASK = "finance/sentiment_analysis"
SHORT = "News: {{input}}\nSentiment:"
LABELS = ("negative", "neutral", "positive")


def experts(folder: Path, model: Any, repository: Path) -> Path:
    """Writes adapters, templates and a registry for the worker; returns the registry.

    Adapters are untrained: what they cost does not depend on what they know.
    """
    own = repository / "moe_router/experts/llms/adapters"
    few_shot = load_template(own / f"{TASK}/template.json", "default")
    intents = json.loads((repository / "config/demo/experts_registry.json").read_text("utf-8"))
    intents = intents["tasks"]["finance/intent_detection"]["label_set"]
    lora = LoraModel(model, LoraShape(rank=8))
    tasks: dict[str, Any] = {
        "bench/few_shot": _task(folder, few_shot, LABELS),
        "bench/short": _task(folder, SHORT, LABELS),
        "bench/many": _task(folder, SHORT, intents),
    }
    for index in range(4):
        for kind, labels in (("tuned", LABELS), ("many_tuned", tuple(intents))):
            name = f"{kind}{index}"
            if kind == "many_tuned" and index:
                continue
            lora.save(folder / name, MODEL)
            words = tuple(_letters(len(labels))) if kind == "many_tuned" else None
            described = ExpertFile(labels=labels, template=SHORT, words=words).model_dump(exclude_none=True)
            (folder / name / NAME).write_text(json.dumps(described), encoding="utf-8")
            tasks[f"bench/{name}"] = _task(folder, SHORT, labels) | {
                "adapter_name": name,
                "adapter_path": name,
            }
    registry = {"base_models": {MODEL: {"hf_name": f"embedded:{MODEL}"}}, "tasks": tasks}
    path = folder / "experts_registry.json"
    path.write_text(json.dumps(registry), encoding="utf-8")
    return path


def _task(folder: Path, template: str, labels: Sequence[str]) -> dict[str, Any]:
    name = f"template-{abs(hash(template))}.json"
    (folder / name).write_text(json.dumps({"default": template}), encoding="utf-8")
    return {"base_model_key": MODEL, "label_set": list(labels), "template_path": name}


def _letters(count: int) -> list[str]:
    return [a + b for a in "abcdefghijklm" for b in "abdegimn"][:count]


@contextmanager
def serving(command: Sequence[str], ready: str, environment: dict[str, str], log: Path) -> Iterator[int]:
    """Runs a server until the block ends; waits until `ready` answers 200; yields its process id."""
    with log.open("w") as out, subprocess.Popen(
        list(command), env=os.environ | environment, stdout=out, stderr=out
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start; see {log}")
                time.sleep(0.5)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def resident_bytes(process: int) -> int:
    """Memory that a process holds; Linux only."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def worker_command(port: int) -> list[str]:
    """Our worker."""
    return [
        sys.executable,
        "-m",
        "uvicorn",
        "expert_worker.main:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]


def llama_command(gguf: Path, port: int, threads: int) -> list[str]:
    """llama.cpp's own server; as many slots as there are callers, so that it batches them."""
    script = Path(__file__).with_name("llama_server.py")
    return [sys.executable, *map(str, (script, gguf, port, threads, 16))]


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop measured."""

    per_second: float
    latencies_s: list[float]


async def closed_loop(url: str, bodies: Sequence[dict[str, Any]], concurrency: int) -> Load:
    """Sends all bodies, so many at a time; every answer must be a 200."""
    queue = iter(bodies)
    latencies: list[float] = []

    async def caller(client: httpx.AsyncClient) -> None:
        for body in queue:
            started = time.perf_counter()
            answer = await client.post(url, json=body)
            answer.raise_for_status()
            latencies.append(time.perf_counter() - started)

    async with httpx.AsyncClient(timeout=120) as client:
        started = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(concurrency)))
        return Load(len(bodies) / (time.perf_counter() - started), latencies)


async def open_loop(
    url: str, bodies: Sequence[dict[str, Any]], rate: float, seconds: float
) -> dict[str, Any]:
    """Sends at a fixed rate whatever happens; tells what became of the requests.

    By a client that costs little, since the server has to share the machine's processors with it.
    """
    codes: dict[int, int] = {}
    waits: dict[int, list[float]] = {}

    async def one(client: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        began = time.perf_counter()
        async with client.post(url, json=body) as answer:
            await answer.read()
        codes[answer.status] = codes.get(answer.status, 0) + 1
        waits.setdefault(answer.status, []).append(time.perf_counter() - began)

    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(120)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
        asyncio.TaskGroup() as group,
    ):
        started = time.perf_counter()
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + index / rate - time.perf_counter()))
            group.create_task(one(client, bodies[index % len(bodies)]))
    elapsed = time.perf_counter() - started
    refused = sorted(waits.get(503, [0.0]))
    return {
        "codes": codes,
        "goodput": codes.get(200, 0) / elapsed,
        "refusal_p95_ms": round(1000 * refused[int(0.95 * (len(refused) - 1))], 1),
    }


def generate(model: Any, prompt: list[int], new_tokens: int) -> Any:
    """Greedy decoding of one request, as a plain server would do."""
    ids = torch.tensor([prompt])
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, pad_token_id=0
    )

"""The rate of `mole classify-file` against that of the worker alone, on the same texts.

A real worker on the embedded base model, the coordinator before it, and the command; all on this machine,
so that whatever they do beside is the worker's loss. The worker alone is asked with batches as large, and as
many at once, as the command's. Both in turns; the goal is 0.9. On an idle machine:

    python benchmarks/classify_file.py --rows 800
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import reporting
from gateway import MODEL, ROOT, free_port, process

AT_ONCE, BATCH = 64, 16
"""Rows in flight and rows of a request: the command's defaults."""
GOAL = 0.9


def texts(rows: int) -> list[str]:
    """Sentences that differ."""
    made = ("rose by {} percent", "fell by {} percent", "stayed at {} million euros")
    return [
        f"Net sales of division {i} {made[i % 3].format(i % 97)} in the third quarter." for i in range(rows)
    ]


def start(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """The addresses of a worker and of a coordinator before it."""
    worker, ours = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    mapping = {
        "workers": {"worker-0": {"url": worker, "base_model_key": MODEL}},
        "model_to_worker": {MODEL: "worker-0"},
    }
    (folder / "mapping.json").write_text(json.dumps(mapping))
    common = {
        "EXPERT_REGISTRY_PATH": str(ROOT / "config" / "demo" / "experts_registry.json"),
        "EXPERT_MAPPING_PATH": str(folder / "mapping.json"),
        "PYTHONPATH": str(ROOT),
    }
    ready = "/api/v1/health/ready"
    own = {"WORKER_MODEL_KEY": MODEL, "WORKER_ID": "worker-0"}
    stack.enter_context(process(_uvicorn("expert_worker.main:app", worker), worker + ready, common | own))
    own = {"MOLE_STATE_DIR": str(folder / "state")}
    stack.enter_context(process(_uvicorn("app.main:app", ours), ours + ready, common | own))
    return worker, ours


def _uvicorn(app: str, url: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", app, "--port", url.rpartition(":")[2], "--no-access-log"]


async def worker_alone(url: str, task: str, rows: list[str]) -> float:
    """Texts a second of the worker's batches."""
    batches = iter([rows[i : i + BATCH] for i in range(0, len(rows), BATCH)])
    async with aiohttp.ClientSession() as session:

        async def client() -> None:
            for batch in batches:
                items = [{"task_key": task, "text": text, "language": "en"} for text in batch]
                async with session.post(f"{url}/api/v1/expert/classify/batch", json={"items": items}) as said:
                    results = (await said.json())["results"]
                    if any("error" in result for result in results):
                        raise SystemExit(f"the worker failed: {results}")

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(AT_ONCE // BATCH)))
        return len(rows) / (time.perf_counter() - began)


def command(url: str, task: str, source: Path, target: Path) -> float:
    """Texts a second, as the command itself counts them: without the start of its interpreter."""
    given = ["--task", task, "--language", "en", "--url", url, "--json", "--quiet", "--restart"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mole.cli.main", "classify-file", str(source), str(target), *given],
        capture_output=True, check=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    summary = json.loads(done.stdout)
    if summary["failed"]:
        raise SystemExit(f"rows failed: {summary}")
    return float(summary["rows_per_second"])


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    rows = texts(args.rows)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = folder / "in.csv"
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text"])
            writer.writerows([text] for text in rows)
        worker, ours = start(stack, folder)
        asyncio.run(worker_alone(worker, args.task, rows[:AT_ONCE]))  # caches
        found: dict[str, list[float]] = {"worker": [], "command": []}
        for _ in range(args.rounds):
            found["worker"].append(asyncio.run(worker_alone(worker, args.task, rows)))
            found["command"].append(command(ours, args.task, source, folder / "out.csv"))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", default="finance/sentiment_analysis")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found = measure(args)
    own, ours = (statistics.median(found[name]) for name in ("worker", "command"))
    shares: dict[str, Any] = {"share": round(ours / own, 3), "goal": GOAL}
    table = "| what | texts a second (median, least, most) |\n|---|---|\n"
    for key, name in (("worker", "the worker alone, in batches"), ("command", "`mole classify-file`")):
        rates = found[key]
        table += f"| {name} | {statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) |\n"
    table += (
        f"\nThe command reaches {ours / own:.2f} of the worker's rate; goal {GOAL}. {args.rows} rows of "
        f"{args.task}; load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
    )
    reporting.write("classify_file", {"rates": found, **shares}, table)


if __name__ == "__main__":
    main()

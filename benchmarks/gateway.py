"""What the coordinator costs, against a bare reverse proxy and LiteLLM's.

All in one run and interleaved, before the same stub worker: (a) the stub asked directly, (b) a bare aiohttp
reverse proxy, (c) LiteLLM's proxy with the stub as an OpenAI-style endpoint, (d) the coordinator with gating
bypassed by options.task and options.language, and (e) with gating deciding. A closed loop at each
concurrency; figures are medians over the rounds, with their range. The processor time of the serving process
is the one figure that other work on the machine hardly changes; for the others run it on an idle machine:

    python benchmarks/gateway.py --litellm /path/to/venv/bin/litellm
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import reporting
import uvloop

ROOT = Path(__file__).parents[1]
PARTS = str(Path(__file__).with_name("gateway_parts.py"))
MODEL, TASK, LABEL = "gemma-3-270m", "finance/sentiment_analysis", "positive"
QUESTION = "Is this good or bad news for investors?"
CLASSIFY = "/api/v1/classify"
NAMES = {
    "direct": "(a) the stub worker, asked directly",
    "proxy": "(b) bare aiohttp reverse proxy",
    "litellm": "(c) LiteLLM proxy",
    "bypassed": "(d) coordinator, task and language given",
    "gated": "(e) coordinator, gating decides",
}


@dataclass(frozen=True)
class Way:
    """Where a request goes and what it says."""

    url: str
    body: dict[str, Any]
    headers: dict[str, str]
    pid: int
    """of the process that serves it"""

    def cpu_s(self) -> float:
        """Seconds of processor time that it has used, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(command: list[str], ready: str, environment: dict[str, str]) -> Iterator[int]:
    """A process, by its id, that answers `ready` before the block, and ends after it."""
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log
        )
        try:
            wait_for(ready, started, log)
            yield started.pid
        finally:
            started.terminate()
            started.wait(20)


def wait_for(url: str, started: subprocess.Popen[bytes], log: Any) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and started.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own process
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"{url} never answered:\n{log.read().decode(errors='replace')[-3000:]}")


def expert_body(text: str) -> dict[str, Any]:
    return {"task_key": TASK, "text": text, "language": "en"}


def classify_body(text: str) -> dict[str, Any]:
    options = {"task": TASK, "language": "en", "via": "expert"}
    return {"text": text, "description": QUESTION, "options": options}


def start(stack: ExitStack, litellm: str | None) -> tuple[dict[str, Way], str]:
    """Starts everything; the ways, and the stub's address."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    stub = f"http://127.0.0.1:{(stub_port := free_port())}"
    worker = [sys.executable, PARTS, "worker", str(stub_port), MODEL, TASK, LABEL]
    stub_id = stack.enter_context(process(worker, stub + "/api/v1/health/ready", {}))
    proxy = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, PARTS, "proxy", str(port), stub]
    proxy_id = stack.enter_context(process(command, proxy + "/api/v1/health/ready", {}))
    mapping = {
        "workers": {"stub": {"url": stub, "base_model_key": MODEL}},
        "model_to_worker": {MODEL: "stub"},
    }
    (folder / "mapping.json").write_text(json.dumps(mapping))
    ours = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--no-access-log"]
    settings = {
        "EXPERT_MAPPING_PATH": str(folder / "mapping.json"),
        "EXPERT_REGISTRY_PATH": str(ROOT / "config" / "demo" / "experts_registry.json"),
        "MOLE_PROBE_INTERVAL_SECONDS": "1",
        "MOLE_STATE_DIR": str(folder / "state"),  # empty: what earlier runs recorded slows this one down
        "PYTHONPATH": str(ROOT),
    }
    our_id = stack.enter_context(process(command, ours + "/api/v1/health/ready", settings))
    text = "Sales rose by twelve percent in the third quarter."
    plain = {"Content-Type": "application/json"}
    ways = {
        "direct": Way(stub + "/api/v1/expert/classify", expert_body(text), plain, stub_id),
        "proxy": Way(proxy + "/api/v1/expert/classify", expert_body(text), plain, proxy_id),
        "bypassed": Way(ours + CLASSIFY, classify_body(text), plain, our_id),
        "gated": Way(ours + CLASSIFY, {"text": text, "description": QUESTION}, plain, our_id),
    }
    if litellm is not None:
        ways["litellm"] = start_litellm(stack, folder, litellm, stub, text)
    return ways, stub


def start_litellm(stack: ExitStack, folder: Path, litellm: str, stub: str, text: str) -> Way:
    model = {"model": "openai/stub", "api_base": stub + "/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "stub", "litellm_params": model}]}
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [litellm, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        # Without keys on its side either: what is compared is the forwarding.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    own_id = stack.enter_context(process([*command, "--num_workers", "1"], url + "/health/liveliness", quiet))
    body = {"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
    return Way(url + "/v1/chat/completions", body, headers, own_id)


async def load(way: Way, concurrency: int, seconds: float) -> dict[str, float]:
    """A closed loop: each client asks again as soon as it is answered."""
    times: list[float] = []
    body = json.dumps(way.body).encode()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=way.headers) as session:

        async def client(ends: float) -> None:
            while (began := time.perf_counter()) < ends:
                async with session.post(way.url, data=body) as answer:
                    content = await answer.read()
                    if answer.status != 200:
                        raise SystemExit(f"{way.url}: {answer.status} {content[:500]!r}")
                times.append(time.perf_counter() - began)

        async def run(duration: float) -> float:
            began = time.perf_counter()
            await asyncio.gather(*(client(began + duration) for _ in range(concurrency)))
            return time.perf_counter() - began

        await run(min(0.3, seconds))  # connections, caches
        times.clear()
        before = way.cpu_s()
        took = await run(seconds)
        used = way.cpu_s() - before
    ranked = sorted(times)
    return {
        "p50_ms": ranked[len(ranked) // 2] * 1000,
        "p99_ms": ranked[min(int(len(ranked) * 0.99), len(ranked) - 1)] * 1000,
        "per_second": len(ranked) / took,
        "cpu_ms": used / len(ranked) * 1000,
    }


async def measure(ways: dict[str, Way], stub: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    runs: dict[tuple[float, int, str], list[dict[str, float]]] = {}
    for index in range(args.rounds):
        for delay_ms in args.delays:
            async with aiohttp.ClientSession() as session:
                await session.post(f"{stub}/delay/{delay_ms:g}")
            for concurrency in args.concurrency:
                names = list(ways)
                turn = index % len(names)  # each way comes first in its turn
                for name in names[turn:] + names[:turn]:
                    found = await load(ways[name], concurrency, args.seconds)
                    runs.setdefault((delay_ms, concurrency, name), []).append(found)
    return [
        {"delay_ms": delay_ms, "concurrency": concurrency, "way": name}
        | {key: spread([run[key] for run in found]) for key in found[0]}
        for (delay_ms, concurrency, name), found in sorted(runs.items(), key=lambda item: item[0][:2])
    ]


def spread(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {"median": round(middle, 3), "least": round(min(values), 3), "most": round(max(values), 3)}


def ratios(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The goals: added latency over the proxy's, throughput over LiteLLM's, p99 over p50."""
    by = {(r["delay_ms"], r["concurrency"], r["way"]): r for r in results}
    found = []
    for delay_ms, concurrency in dict.fromkeys(key[:2] for key in by):
        own = {name: by[delay_ms, concurrency, name] for name in NAMES if (delay_ms, concurrency, name) in by}
        direct, ours = own["direct"]["p50_ms"]["median"], own["bypassed"]
        added = {name: r["p50_ms"]["median"] - direct for name, r in own.items() if name != "direct"}
        told = {
            "delay_ms": delay_ms,
            "concurrency": concurrency,
            "added_p50_ms": {name: round(ms, 3) for name, ms in added.items()},
            "added_over_proxy": over(added["bypassed"], added["proxy"]),
            "p99_over_p50": round(
                own["bypassed"]["p99_ms"]["median"] / own["bypassed"]["p50_ms"]["median"], 2
            ),
        }
        if "litellm" in own:
            rate = ours["per_second"]["median"] / own["litellm"]["per_second"]["median"]
            told["throughput_over_litellm"] = round(rate, 1)
        found.append(told)
    return found


def over(ours: float, by_proxy: float) -> float | str:
    """What is added over what the proxy adds; no figure where either is lost in the noise."""
    return round(ours / by_proxy, 2) if ours > 0 and by_proxy > 0 else "n/a"


def table(results: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    rows = [
        "| worker ms | clients | way | p50 ms | p99 ms | requests a second | CPU ms a request |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        told = [
            "{median:.2f} ({least:.2f} to {most:.2f})".format(**r[k])
            for k in ("p50_ms", "p99_ms", "per_second", "cpu_ms")
        ]
        rows.append(f"| {r['delay_ms']:g} | {r['concurrency']} | {NAMES[r['way']]} | {' | '.join(told)} |")
    rows += [
        "",
        "| worker ms | clients | (d) adds, over what (b) adds; goal 1.3 | (d) p99 over p50; goal 3 "
        "| (d) throughput over (c); goal 15 |",
        "|---|---|---|---|---|",
    ]
    for g in goals:
        added, rate = g["added_p50_ms"], g.get("throughput_over_litellm", "not measured")
        rows.append(
            f"| {g['delay_ms']:g} | {g['concurrency']} | {g['added_over_proxy']} ({added['bypassed']} ms, "
            f"{added['proxy']} ms) | {g['p99_over_p50']} | {rate} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--litellm", help="the command of a LiteLLM proxy; (c) is left out without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each way in each round")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 20.0], help="the stub's, in ms")
    args = parser.parse_args()
    with ExitStack() as stack:
        ways, stub = start(stack, args.litellm)
        results = uvloop.run(measure(ways, stub, args))
    goals = ratios(results)
    busy = f"\n\nLoad of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
    reporting.write("gateway", {"results": results, "goals": goals}, table(results, goals) + busy)


if __name__ == "__main__":
    main()

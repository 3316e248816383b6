"""How a task that no weight has seen fares: each shipped one is left out, and added by its description.

The tasks are left out in three groups, of the requests that adapt the encoder and of those that the
heads are fitted on. Then a registry that names every task, but of those in the group only the sentence
of description, is served, and validation requests are decided as `/route` decides them: how many for
such a task reach it, how many are abstained from or go elsewhere, and what that costs the others. The
adapters of the groups are made before, each by
    mole train encoder --data DIR --output OUT/GROUP --without TASK --without TASK --without TASK
Without --adapters the shipped adapter is used, which has seen the tasks' requests: all the rest is new.
Probes, which choose no task, are left out.

    python benchmarks/new_task.py --data DIR [--adapters OUT]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import reporting

from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.assets.encoder import ensure_encoder
from moe_router.gating.encoder import Encoder
from moe_router.gating.pipeline import GatingConfig, GatingPipeline
from moe_router.registry import load_registry
from moe_router.training.build import GatingRun, build
from moe_router.training.evaluate import Judged, judge
from moe_router.training.feedback.remembered import RememberingEncoder
from moe_router.training.newcomer import Reach, lacking, serving, told
from moe_router.training.requests import Composer, load_texts

REGISTRY = Path("config/demo/experts_registry.json")
GROUPS = {
    "a": ("finance/sentiment_analysis", "retail/review_rating", "general/topic_classification"),
    "b": ("finance/intent_detection", "social/hate_speech", "retail/product_relevance"),
    "c": ("finance/news_classification", "finance/pii_detection", "social/sentiment_analysis"),
}


async def judge_all(
    shipped: GatingPipeline, new: frozenset[str], encoder: Any, run: GatingRun
) -> list[Judged]:
    """The validation requests, decided by gating that was made without the new tasks."""
    registry = shipped.registry.without_probes(shipped.registry.tasks)  # they answer in an expert's place
    build(run, lacking(registry, new), encoder, lambda *_: None)
    pipeline = await serving(run.output, told(registry, new), shipped, encoder)
    texts = load_texts(run.data, "validation", run.texts_per_group, run.seed)
    requests = [r for r in Composer(texts, "validation", run.seed + 2).epoch(0) if r.kind != "generic"]
    judged = [await judge(pipeline, request) for request in requests]
    await pipeline.aclose()
    return judged


def figures(judged: Sequence[Judged], new: frozenset[str]) -> dict[str, Any]:
    """Of each new task, beside the accuracy of the tasks that are not new."""
    others = Reach.of([j for j in judged if j.in_scope and j.request.target not in new])
    found = {}
    for task in sorted(new):
        own = asdict(Reach.of([j for j in judged if j.request.target == task]))
        found[task] = {key: round(value, 4) for key, value in own.items()} | {
            "others": round(others.reached, 4)
        }
    return found


def measure(data: Path, adapters: Path | None, seed: int) -> dict[str, Any]:
    cache = DEFAULT_CACHE.expanduser()
    shipped = GatingPipeline.load(load_registry(REGISTRY), GatingConfig(cache))
    result: dict[str, Any] = {}
    for name, tasks in GROUPS.items():
        # By the shipped adapter a task is left out alone; an adapter of its own for each would take hours.
        for new in [frozenset(tasks)] if adapters else [frozenset([task]) for task in tasks]:
            adapter = adapters / name / "encoder_adapter.safetensors" if adapters else None
            encoder = Encoder(ensure_encoder(cache, adapter=adapter), max_tokens=256)
            remembering = RememberingEncoder(encoder, cache / "benchmarks")
            with TemporaryDirectory() as folder:
                run = GatingRun(data, Path(folder), seed=seed, without=new)
                own = figures(asyncio.run(judge_all(shipped, new, remembering, run)), new)
            remembering.save()
            print(own, flush=True)
            result |= own
    return {"adapters": adapters is not None, "seed": seed, "tasks": result}


def table(result: dict[str, Any]) -> str:
    rows = [
        "| task, added by description | reached by its requests | abstained | elsewhere | n | others |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {task} | {own['reached']:.4f} | {own['abstained']:.4f} | {own['elsewhere']:.4f} | {own['n']} "
        f"| {own['others']:.4f} |"
        for task, own in sorted(result["tasks"].items())
    ]
    mean = np.mean([own["reached"] for own in result["tasks"].values()])
    return "\n".join([*rows, "", f"Mean over the tasks: {mean:.4f}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--adapters", type=Path, help="folder of the groups' adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    args = parser.parse_args()
    result = measure(args.data, args.adapters, args.seed)
    if args.dry:
        print(table(result))
    else:
        reporting.write("new-task", result, table(result))


if __name__ == "__main__":
    main()

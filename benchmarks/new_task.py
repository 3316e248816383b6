"""How a task that no weight has seen fares: each shipped one is left out, and added by its description.

The tasks are left out in three groups, of the requests that adapt the encoder and of those that the
heads are fitted on. Then a registry that names every task, but of those in the group only the sentence
of description, decides the validation requests: how many for such a task reach it, and what that costs
the others. The adapters of the groups are made before, each by
    mole train encoder --data DIR --output OUT/GROUP --without TASK --without TASK --without TASK
Without --adapters the shipped adapter is used, which has seen the tasks' requests: only the heads are new.

    python benchmarks/new_task.py --data DIR [--adapters OUT]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import reporting

from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.assets.encoder import ensure_encoder
from moe_router.gating.encoder import Encoder
from moe_router.registry import Registry, load_registry
from moe_router.training.build import GatingRun, make_heads, part
from moe_router.training.embedded import Embedded
from moe_router.training.gating import fit_head
from moe_router.training.remembered import RememberingEncoder
from moe_router.training.requests import Composer
from moe_router.training.simulation import vectors_of

REGISTRY = Path("config/demo/experts_registry.json")
GROUPS = {
    "a": ("finance/sentiment_analysis", "retail/review_rating", "general/topic_classification"),
    "b": ("finance/intent_detection", "social/hate_speech", "retail/product_relevance"),
    "c": ("finance/news_classification", "finance/pii_detection", "social/sentiment_analysis"),
}


def added_by_description(registry: Registry, new: frozenset[str]) -> Registry:
    """The registry with only the description left of what tells the new tasks."""
    found = registry.model_dump()
    for key in new:
        found["tasks"][key]["examples"] = []
    return Registry.model_validate(found)


def judge(registry: Registry, new: frozenset[str], encoder: Any, data: Path, seed: int) -> dict[str, Any]:
    """Accuracy on the validation requests by task, where `new` were left out of the training."""
    embed = Embedded(encoder, lambda *_: None)
    run = GatingRun(data, Path(), seed=seed, without=new)
    train, validation = (part(run, split, embed) for split in ("train", "validation"))
    meta: dict[str, Any] = {"encoder": encoder.identity, "hidden": encoder.hidden}
    domains = fit_head(train, validation, lambda task: task.split("/")[0], meta)
    tasks = fit_head(train, validation, lambda task: task, meta)
    _, head = make_heads(added_by_description(registry, new), domains, tasks, embed)
    right: dict[str, list[bool]] = defaultdict(list)
    requests = [r for r in Composer(validation.texts, "validation", seed + 1).epoch(0) if r.kind != "generic"]
    embed([r.text.text for r in requests if r.text] + [r.description.text for r in requests if r.description])
    for request in requests:
        found = head(*vectors_of(request, embed))
        right[request.target].append(found.names[int(found.probabilities.argmax())] == request.target)
    return {key: {"accuracy": round(float(np.mean(own)), 4), "n": len(own)} for key, own in right.items()}


def measure(data: Path, adapters: Path | None, seed: int) -> dict[str, Any]:
    registry, cache = load_registry(REGISTRY), DEFAULT_CACHE.expanduser()
    vectors = cache / "benchmarks"
    result: dict[str, Any] = {}
    for name, tasks in GROUPS.items():
        # By the shipped adapter a task is left out alone; an adapter of its own for each would take hours.
        for new in [frozenset(tasks)] if adapters else [frozenset([task]) for task in tasks]:
            adapter = adapters / name / "encoder_adapter.safetensors" if adapters else None
            encoder = Encoder(ensure_encoder(cache, adapter=adapter), max_tokens=256)
            remembering = RememberingEncoder(encoder, vectors)
            own = judge(registry, new, remembering, data, seed)
            remembering.save()
            others = [v for key, v in own.items() if key in registry.tasks and key not in new]
            rest = sum(v["accuracy"] * v["n"] for v in others) / sum(v["n"] for v in others)
            for task in sorted(new):
                result[task] = own[task] | {"others": round(rest, 4)}
                print(task, result[task], flush=True)
    return {"adapters": adapters is not None, "seed": seed, "tasks": result}


def table(result: dict[str, Any]) -> str:
    rows = ["| task, added by description | reached by its requests | n | accuracy of the others |"]
    rows += ["|---|---|---|---|"]
    rows += [
        f"| {task} | {own['accuracy']:.4f} | {own['n']} | {own['others']:.4f} |"
        for task, own in sorted(result["tasks"].items())
    ]
    mean = np.mean([own["accuracy"] for own in result["tasks"].values()])
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

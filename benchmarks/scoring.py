"""Label scoring against Hugging Face generate(), on the embedded base model.

Interleaved, text by text, on one model in one process: (a) `generate()` of up to 5 tokens, greedy, on the
whole prompt; (b) ours: the trie scored with the template's head cached. Once a request and in batches of 8.
Run it on an idle machine: python benchmarks/scoring.py
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import reporting
import torch

from moe_router.assets.base_model import ensure_base_model
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.experts.engines.base import LabelJob
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.prompting import Template, load_template
from moe_router.experts.scoring import LabelTrie
from moe_router.registry import BaseModelSpec, Registry, load_registry

REGISTRY = Path("config/demo/experts_registry.json")
ADAPTERS = Path("moe_router/experts/llms/adapters")
MODEL = "gemma-3-270m"
NEW_TOKENS = 5
BATCH = 8
TEXTS = [
    "Shares of the retailer fell 6% after it warned that profit would miss its own forecast.",
    "Der Umsatz stieg im dritten Quartal um zwölf Prozent auf 4,1 Milliarden Euro.",
    "La banque centrale laisse son taux directeur inchangé, comme prévu.",
    "The chipmaker raised its outlook for the year after orders from data centres doubled.",
    "El grupo anunció el cierre de dos fábricas y 900 despidos.",
    "The company will publish its results on 14 May before the market opens.",
    "L'utile netto è sceso del 30% a causa del costo dell'energia.",
    "Regulators approved the merger without conditions, clearing the last hurdle for the deal.",
]


class Case:
    """A task's template and labels, for both ways of asking."""

    def __init__(
        self, engine: TransformersEngine, registry: Registry, task_key: str, head: str | None = None
    ) -> None:
        task = registry.task(task_key)
        source = load_template(ADAPTERS / f"{task_key}/template.json", MODEL) if head is None else head
        self.template = Template(source, {"labels": ", ".join(task.label_set)})
        sequences = [
            engine.tokens.encode(self.template.label_prefix + label, trusted=False)
            for label in task.label_set
        ]
        self.trie = LabelTrie(sequences, engine.tokens.line_end)
        self._engine = engine

    def job(self, text: str) -> LabelJob:
        """What ours takes."""
        return LabelJob(self._engine.tokens.prompt(self.template, {"input": text}, None), self.trie)

    def whole(self, text: str) -> list[int]:
        """What generate() takes."""
        prompt = self.job(text).prompt
        return [*prompt.head, *prompt.tail]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def generate(model: Any, prompts: Sequence[list[int]]) -> Any:
    """Greedy, padded on the left, as a plain server would."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )


def measure(ways: dict[str, Callable[[int], object]], samples: int) -> dict[str, dict[str, float]]:
    """Runs the ways in turn, text by text, after each ran once uncounted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(samples + 1):
        for name, way in ways.items():
            index = turn % len(TEXTS)
            spent = timed(lambda way=way, index=index: way(index))  # type: ignore[misc]
            if turn:
                seconds[name].append(spent)
    return {name: reporting.spread(values) for name, values in seconds.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--samples", type=int, default=24)
    arguments.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    arguments.add_argument("--threads", type=int, default=2)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)

    registry = load_registry(REGISTRY)
    spec = BaseModelSpec(hf_name=f"embedded:{MODEL}")
    model, tokenizer = load_model(ensure_base_model(spec.hf_name, given.cache.expanduser()), spec)
    engine = TransformersEngine(model, HfTokens(tokenizer, max_text_tokens=512))
    few = Case(engine, registry, "finance/sentiment_analysis")
    bare = Case(engine, registry, "finance/sentiment_analysis", head="News: {{input}}\nSentiment:")
    many = Case(engine, registry, "finance/intent_detection")
    shuffled = [TEXTS[i:] + TEXTS[:i] for i in range(len(TEXTS))]

    single = measure(
        {
            "generate": lambda i: generate(model, [few.whole(TEXTS[i])]),
            "ours": lambda i: engine.infer([few.job(TEXTS[i])]),
            "ours, no head": lambda i: engine.infer([bare.job(TEXTS[i])]),
            "ours, 77 labels": lambda i: engine.infer([many.job(TEXTS[i])]),
        },
        given.samples,
    )
    batch = measure(
        {
            "generate": lambda i: generate(model, [few.whole(t) for t in shuffled[i]]),
            "ours": lambda i: engine.infer([few.job(t) for t in shuffled[i]]),
        },
        max(2, given.samples // 3),
    )
    report(single, batch, len(few.job(TEXTS[0]).prompt.head))


def report(single: dict[str, Any], batch: dict[str, Any], head: int) -> None:
    ratios = {
        "generate / ours, batch 1": single["generate"]["median_ms"] / single["ours"]["median_ms"],
        f"generate / ours, batch {BATCH}": batch["generate"]["median_ms"] / batch["ours"]["median_ms"],
        f"a head of {head} tokens / none": single["ours"]["median_ms"] / single["ours, no head"]["median_ms"],
        "77 labels / 3 labels": single["ours, 77 labels"]["median_ms"] / single["ours"]["median_ms"],
    }
    rows = [("batch 1", name, values, 1) for name, values in single.items()]
    rows += [(f"batch {BATCH}", name, values, BATCH) for name, values in batch.items()]
    lines = ["| | way | median ms | quartiles ms | ms a request | n |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {size} | {name} | {v['median_ms']:.0f} | {v['q1_ms']:.0f} to {v['q3_ms']:.0f} "
        f"| {v['median_ms'] / count:.0f} | {v['n']} |"
        for size, name, v, count in rows
    ]
    lines += ["", "| ratio of medians | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in ratios.items()]
    # Two busy cores show here; the ways share what they have, since they take turns.
    load = round(os.getloadavg()[1], 2)
    lines += ["", f"Load average of the machine over the last five minutes: {load}."]
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    result = {"batch_1": single, "batch_8": batch, "ratios": rounded, "load_average": load}
    reporting.write("scoring", result, "\n".join(lines))


if __name__ == "__main__":
    main()

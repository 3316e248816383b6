"""A tiny base model with a registry and data, on which an expert can be trained in a second."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from moe_router.contracts import Entity
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import Expert, Registry
from moe_router.training.experts.examples import Row
from moe_router.training.experts.lora import ADAPTER

LABELS = ("card_arrival", "card_payment", "card payment declined")
TYPES = ("PERSON", "EMAIL")
TEMPLATE = "Text: {{input}}\nLabel:"


def registry(base: Path) -> Registry:
    def task(kind: str, labels: Sequence[str]) -> dict[str, Any]:
        return {"base_model_key": "tiny", "kind": kind, "label_set": list(labels)}

    return Registry.model_validate({
        "base_models": {"tiny": {"hf_name": str(base)}},
        "tasks": {"bank/intent": task("classification", LABELS), "bank/pii": task("extraction", TYPES)},
    })  # fmt: skip


def expert(base: Path, task_key: str, words: tuple[str, ...] | None = None) -> TaskExpert:
    known = registry(base)
    task = known.task(task_key)
    tokens = HfTokens(AutoTokenizer.from_pretrained(base), 64)
    trained = ExpertFile(labels=task.label_set, template=TEMPLATE, words=words)
    named = Expert("e", task_key, "tiny", "e", "", None, None, 1.0)
    return TaskExpert(named, task, None, tokens, ADAPTER, trained=trained)


def rows(count: int = 24) -> list[Row]:
    subjects = ("where is it", "who took my money", "it said no")
    return [Row(f"{subjects[i % 3]} {i}", ("en", "de")[i % 2], LABELS[i % 3]) for i in range(count)]


def entity_row() -> Row:
    text = "Please ask Anna Berg, of Lund, or anna@example.org for a copy."
    spans = [("PERSON", "Anna Berg"), ("EMAIL", "anna@example.org")]
    found = [
        Entity(type=t, start=text.index(v), end=text.index(v) + len(v), value=v, confidence=1.0)
        for t, v in spans
    ]
    return Row(text, "en", "", tuple(found))


def write(folder: Path, train: Sequence[Row], validation: Sequence[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("validation", validation)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for row in part:
                data: dict[str, Any] = {"text": row.text, "language": row.language, "context": row.context}
                if row.entities:
                    data["entities"] = [e.model_dump(exclude={"confidence"}) for e in row.entities]
                else:
                    data["label"] = row.label
                lines.write(json.dumps(data) + "\n")
    return folder

"""A registry of tiny models with all kinds of experts, and what is asked of them."""

from __future__ import annotations

from typing import Any

from moe_router.contracts import ExpertRequest
from moe_router.registry import Registry

TEXT = "Anna paid by card for the arrival"


def task(**more: Any) -> dict[str, Any]:
    return {"base_model_key": "g", "label_set": ["positive", "negative", "neutral"], **more}


def ask(task_key: str, text: str = TEXT, **more: Any) -> ExpertRequest:
    return ExpertRequest(task_key=task_key, text=text, language="en", return_probabilities=True, **more)


def edited(registry: Registry, task_key: str, **changes: Any) -> Registry:
    data = registry.model_dump(exclude_defaults=True)
    data["tasks"][task_key] = {**data["tasks"].get(task_key, task()), **changes}
    return Registry.model_validate(data)

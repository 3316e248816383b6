"""Small registries and mappings for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODEL = "tiny"
SENTIMENT = "finance/sentiment_analysis"
PII = "finance/pii_detection"
GERMAN_ONLY = "social/tone"
LABELS = ["negative", "neutral", "positive"]


def registry() -> dict[str, Any]:
    return {
        "base_models": {MODEL: {"hf_name": "none"}},
        "tasks": {
            SENTIMENT: {"base_model_key": MODEL, "adapter_name": "fin", "label_set": LABELS},
            PII: {"base_model_key": MODEL, "kind": "extraction", "label_set": ["NAME", "EMAIL"]},
            GERMAN_ONLY: {
                "base_model_key": MODEL,
                "label_set": ["kind", "rude"],
                "supported_languages": ["de"],
            },
        },
    }


def mapping(*urls: str, model: str = MODEL) -> dict[str, Any]:
    workers = {f"worker-{i}": {"url": url, "base_model_key": model} for i, url in enumerate(urls)}
    return {"workers": workers, "model_to_worker": {model: list(workers)}}


def write(folder: Path, mapping_data: Any, registry_data: Any | None = None) -> tuple[Path, Path]:
    """Writes both files; returns the registry's path and the mapping's."""
    registry_file, mapping_file = folder / "experts_registry.json", folder / "expert_machine_mapping.json"
    registry_file.write_text(json.dumps(registry_data or registry()))
    mapping_file.write_text(json.dumps(mapping_data))
    return registry_file, mapping_file

"""Writes docs/schemas from the models of the files that operators edit, or checks that it is up to date.

An editor that reads `"$schema"` completes the keys, explains them, and marks what the services would refuse.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from moe_router.mapping import WorkerMapping
from moe_router.registry import Registry
from scripts.pages import ROOT, main

FOLDER = ROOT / "docs" / "schemas"
COMMENTS = "^[_$]"
"""Keys that the services read over."""
TITLES = {
    "experts_registry": (Registry, "MoLE: base models, tasks and experts"),
    "expert_machine_mapping": (WorkerMapping, "MoLE: where the workers are"),
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a file, as it may be written: with comments, and one replica without a list."""
    model, title = TITLES[name]
    made = with_comments(model.model_json_schema())
    if model is WorkerMapping:
        replicas = made["properties"]["model_to_worker"]["additionalProperties"]
        made["properties"]["model_to_worker"]["additionalProperties"] = {
            "anyOf": [{"type": "string", "description": "The only worker."}, replicas]
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": title}


def with_comments(node: Any) -> Any:
    """The schema with comment keys allowed wherever the names of the keys are free."""
    if isinstance(node, list):
        return [with_comments(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: with_comments(value) for key, value in node.items()}
    if isinstance(found.get("additionalProperties"), dict):
        found["patternProperties"] = {COMMENTS: True}
    return found


def files() -> dict[Path, str]:
    """Paths and contents."""
    return {
        FOLDER / f"{name}.schema.json": json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
        for name in TITLES
    }


if __name__ == "__main__":
    sys.exit(main(files(), __doc__))

"""The published JSON Schemas: they take what the services take, and mark what they refuse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from moe_router.mapping import WorkerMapping, load_mapping
from moe_router.registry import Registry, load_registry
from scripts.schemas import schema
from tests.stubs import files

ROOT = Path(__file__).resolve().parents[3]
REGISTRY = jsonschema_rs.validator_for(schema("experts_registry"))
MAPPING = jsonschema_rs.validator_for(schema("expert_machine_mapping"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.json")), ids=lambda path: str(path.name))
def test_the_shipped_files_are_valid(path: Path):
    validator = REGISTRY if "registry" in path.name else MAPPING
    validator.validate(json.loads(path.read_text()))


def test_comments_and_the_schema_itself_may_stand_in_both_files(tmp_path: Path):
    registry = {"$schema": "x", "_note": 1, **files.registry()}
    registry["tasks"] = {"_why": "a comment", **registry["tasks"]}
    mapping = {"$schema": "x", **files.mapping("http://h:1")}
    mapping["workers"] = {"_off": "a comment", **mapping["workers"]}
    mapping["model_to_worker"] = {"_x": 1, files.MODEL: "worker-0"}
    REGISTRY.validate(registry)
    MAPPING.validate(mapping)
    registry_file, mapping_file = files.write(tmp_path, mapping, registry)
    assert set(load_registry(registry_file).tasks) == set(files.registry()["tasks"])
    loaded = load_mapping(mapping_file)
    assert not loaded.model_extra
    assert loaded.workers_for(files.MODEL) == ("worker-0",)


def change(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(data)
    node = found
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tasks",), {}),
        (("tasks", files.SENTIMENT, "base_model_key"), 3),
        (("tasks", files.SENTIMENT, "kind"), "poetry"),
        (("tasks", files.SENTIMENT, "label_set"), "positive"),
        (("base_models", files.MODEL, "hf_name"), ""),
        (("default_generation",), {"top_p": 1.5}),
    ],
)
def test_what_the_registry_refuses_the_schema_refuses(path: tuple[str, ...], value: Any):
    data = change(files.registry(), path, value)
    with pytest.raises(ValueError):
        Registry.model_validate(data)
    assert not REGISTRY.is_valid(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("workers", "worker-0", "url"), 3),
        (("workers", "worker-0", "drain"), "soon"),
        (("model_to_worker", files.MODEL), 3),
    ],
)
def test_what_the_mapping_refuses_the_schema_refuses(path: tuple[str, ...], value: Any):
    data = change(files.mapping("http://h:1"), path, value)
    with pytest.raises(ValueError):
        WorkerMapping.model_validate(data)
    assert not MAPPING.is_valid(data)

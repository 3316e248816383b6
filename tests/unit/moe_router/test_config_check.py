"""The judgement of registry and mapping against each other and the files they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_router.config_check import Report, check_files

REGISTRY: dict[str, Any] = {
    "base_models": {"m": {"hf_name": "org/model"}},
    "tasks": {
        "a/b": {
            "base_model_key": "m",
            "adapter_name": "x",
            "adapter_path": "a/b/m",
            "template_path": "a/b/template.json",
            "label_set": ["yes", "no"],
        }
    },
}
MAPPING: dict[str, Any] = {
    "workers": {"w": {"url": "http://127.0.0.1:1", "base_model_key": "m"}},
    "model_to_worker": {"m": "w"},
}


def changed(document: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    node = copy
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return copy


@pytest.fixture
def check(tmp_path: Path):
    folder = tmp_path / "adapters" / "a" / "b"
    (folder / "m").mkdir(parents=True)
    (folder / "m" / "adapter_model.safetensors").write_bytes(b"")
    (folder / "m" / "adapter_config.json").write_text("{}")
    (folder / "template.json").write_text('{"default": "Is it so? {{input}}"}')

    def run(registry: Any = REGISTRY, mapping: Any = MAPPING, **options: Any) -> Report:
        (tmp_path / "r.json").write_text(json.dumps(registry, indent=1))
        (tmp_path / "m.json").write_text(json.dumps(mapping, indent=1))
        where = tmp_path / "m.json" if mapping is not None else None
        return check_files(tmp_path / "r.json", where, tmp_path / "adapters", tmp_path / "gating", **options)

    return run


def test_sound_files_have_no_findings(check):
    report = check()
    assert report.findings == ()
    assert report.ok
    assert report.registry is not None
    assert report.mapping is not None


def test_a_probe_is_looked_for_where_the_coordinator_reads_it(check, tmp_path):
    registry = write_probe(tmp_path / "gating", REGISTRY["tasks"]["a/b"]["label_set"])
    assert check(registry).findings == ()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(["another"], "other labels"), (None, "cannot be read"), ([1, "x"], "cannot be read")],
)
def test_a_probe_that_the_coordinator_would_leave_out_is_told(check, tmp_path, labels, reason):
    (finding,) = check(write_probe(tmp_path / "gating", labels)).findings
    assert (finding.severity, finding.json_path) == ("warning", "$.tasks['a/b'].probe.path")
    assert reason in finding.reason


def write_probe(folder, labels):
    """A registry whose task names a probe that was made for these labels."""
    folder.mkdir()
    (folder / "p.safetensors").write_bytes(b"")
    (folder / "p.json").write_text(json.dumps({"labels": labels}))
    return changed(REGISTRY, "tasks", "a/b", "probe", to={"path": "p"})


@pytest.mark.parametrize(
    ("path", "value", "code", "json_path", "reason"),
    [
        (
            ("tasks", "a/b", "adapter_path"),
            "gone",
            "missing-weights",
            "$.tasks['a/b'].adapter_path",
            "no folder",
        ),
        (("tasks", "a/b", "adapter_path"), "a/b", "missing-weights", "$.tasks['a/b'].adapter_path", "lacks"),
        (
            ("tasks", "a/b", "template_path"),
            "no.json",
            "missing-template",
            "$.tasks['a/b'].template_path",
            "no such",
        ),
        (
            ("tasks", "a/b", "probe"),
            {"path": "p"},
            "missing-weights",
            "$.tasks['a/b'].probe.path",
            "there is no",
        ),
        (("tasks", "a/b", "label_set"), [], "no-labels", "$.tasks['a/b']", "label_set"),
        (
            ("base_models", "m", "hf_name"),
            "./gone",
            "missing-base-model",
            "$.base_models.m.hf_name",
            "there is no folder",
        ),
    ],
)
def test_missing_things_are_warnings_and_errors_if_strict(check, path, value, code, json_path, reason):
    registry = changed(REGISTRY, *path, to=value)
    (finding,) = check(registry).findings
    assert (finding.severity, finding.code, finding.json_path) == ("warning", code, json_path)
    assert finding.line is not None
    assert reason in finding.reason
    strict = check(registry, strict=True)
    assert [f.code for f in strict.errors] == [code]
    assert not strict.ok


def test_a_missing_override_is_found_where_it_stands(check):
    override = {"german": {"adapter_name": "de", "adapter_path": "de"}}
    (finding,) = check(changed(REGISTRY, "tasks", "a/b", "language_mapping", to=override)).findings
    assert finding.json_path == "$.tasks['a/b'].language_mapping.german.adapter_path"
    shared = {"german": {**override["german"], "adapter_path": "a/b/m", "template_path": "a/b/template.json"}}
    registry = changed(REGISTRY, "tasks", "a/b", "language_mapping", to=shared)
    (finding,) = check(changed(registry, "tasks", "a/b", "adapter_path", to="gone")).findings
    assert finding.json_path == "$.tasks['a/b'].adapter_path"
    experts = [{"name": "e", "base_model_key": "m", "adapter_name": "e", "adapter_path": "e"}]
    (finding,) = check(changed(REGISTRY, "tasks", "a/b", "experts", to=experts)).findings
    assert finding.json_path == "$.tasks['a/b'].experts[0].adapter_path"


def test_a_base_model_without_worker_and_a_worker_without_work(check):
    report = check(mapping={**MAPPING, "model_to_worker": {}})
    assert {f.code for f in report.warnings} == {"no-worker", "idle-worker"}
    other = changed(
        changed(MAPPING, "workers", "w", "base_model_key", to="n"), "model_to_worker", to={"n": "w"}
    )
    reasons = [f.reason for f in check(mapping=other).warnings]
    assert any("declares no base model 'n'" in reason for reason in reasons)


def test_without_a_mapping_only_the_registry_is_judged(check):
    assert check(mapping=None).findings == ()


def test_unknown_keys_never_fail(check):
    registry = changed(REGISTRY, "tasks", "a/b", "expert_path", to="x")
    mapping = changed(changed(MAPPING, "colour", to="red"), "workers", "w", "rack", to=7)
    report = check(registry, mapping, strict=True)
    assert report.ok
    assert {f.json_path for f in report.warnings} == {
        "$.tasks['a/b'].expert_path",
        "$.colour",
        "$.workers.w.rack",
    }


def test_each_unreadable_file_is_an_error(check):
    report = check({"tasks": {}}, {"workers": 3})
    assert [f.code for f in report.errors] == ["invalid", "invalid"]
    assert report.registry is None
    assert "r.json" in str(report.findings[0])


def test_the_default_prompt_needs_no_template(check):
    registry = changed(REGISTRY, "tasks", "a/b", "template_path", to=None)
    assert check(registry).findings == ()

"""Judges the registry and the mapping against each other and against the files they name.

`mole config check` and `mole serve` ask here, with the schemas that the services read the files by: what
these refuse is an error. A missing weight or template, which may be on the machine that serves it, and a base
model that no worker serves are warnings, errors if strict; a key that nobody knows is always a warning only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moe_router import jsonfile
from moe_router.errors import ConfigError
from moe_router.experts.prompting import load_template
from moe_router.experts.roster import resolve
from moe_router.jsonfile import Location
from moe_router.mapping import WorkerMapping
from moe_router.registry import Expert, Registry, TaskSpec, unknown_keys

Severity = Literal["error", "warning"]
Code = Literal[
    "invalid",
    "unknown-key",
    "missing-weights",
    "missing-template",
    "missing-base-model",
    "no-labels",
    "no-worker",
    "idle-worker",
]

STRICT_CODES: frozenset[Code] = frozenset(
    {"missing-weights", "missing-template", "missing-base-model", "no-labels", "no-worker"}
)
"""What `--strict` counts as errors."""

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: in which file, where in it, and why."""

    severity: Severity
    code: Code
    file: str
    line: int | None
    json_path: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{where}: {self.json_path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and the files that could be read."""

    findings: tuple[Finding, ...]
    registry: Registry | None = field(repr=False, default=None)
    mapping: WorkerMapping | None = field(repr=False, default=None)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps a service from using the files."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What works, but perhaps not as meant."""
        return tuple(f for f in self.findings if f.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


def check_files(
    registry_path: Path,
    mapping_path: Path | None,
    adapter_root: Path,
    gating_models: Path | None,
    *,
    strict: bool = False,
) -> Report:
    """Reads both files and judges them; without a mapping (monolithic mode) the registry alone.

    Args:
        registry_path: The registry.
        mapping_path: The mapping, or None.
        adapter_root: The folder that relative adapter and template paths are taken from.
        gating_models: The folder that relative probe paths are taken from; None for a worker, which has none.
        strict: Whether warnings about missing things count as errors.
    """
    findings: list[Finding] = []
    registry = mapping = None
    try:
        registry = jsonfile.load_model(registry_path, Registry)
    except ConfigError as error:
        findings.append(_invalid(error))
    if mapping_path is not None:
        try:
            mapping = jsonfile.load_model(mapping_path, WorkerMapping)
        except ConfigError as error:
            findings.append(_invalid(error))
    if registry is not None:
        findings += _judge_registry(registry, _Source(registry_path), adapter_root, gating_models, mapping)
    if mapping is not None:
        assert mapping_path is not None  # noqa: S101 - for the type checker: it was just read
        findings += _judge_mapping(mapping, _Source(mapping_path), registry)
    if strict:
        findings = [_as_error(f) if f.code in STRICT_CODES else f for f in findings]
    findings.sort(key=lambda f: f.severity)
    return Report(tuple(findings), registry, mapping)


class _Source:
    """A file and its text, for the lines of what is found in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = path.read_text(encoding="utf-8-sig")

    def warning(self, code: Code, location: Location, reason: str) -> Finding:
        line = jsonfile.line_of(self._text, location)
        return Finding("warning", code, str(self.path), line, jsonfile.json_path(location), reason)


def _invalid(error: ConfigError) -> Finding:
    return Finding("error", "invalid", error.file, error.line, error.json_path, error.reason)


def _as_error(finding: Finding) -> Finding:
    return Finding(
        "error", finding.code, finding.file, finding.line, finding.json_path, finding.reason
    )  # dataclasses.replace loses the literal types


def _judge_registry(
    registry: Registry, source: _Source, root: Path, gating_models: Path | None, mapping: WorkerMapping | None
) -> Iterator[Finding]:
    for path in unknown_keys(registry):
        yield Finding("warning", "unknown-key", str(source.path), None, path, "unknown key, ignored")
    for model_key, spec in registry.base_models.items():
        if _is_folder(spec.hf_name) and not Path(spec.hf_name).expanduser().is_dir():
            where: Location = ("base_models", model_key, "hf_name")
            yield source.warning(
                "missing-base-model", where, f"there is no folder {Path(spec.hf_name).absolute()}"
            )
    for key, task in registry.tasks.items():
        if task.probe is not None and gating_models is not None:
            fault = _probe_fault(gating_models / task.probe.path, task)
            if fault is not None:
                yield source.warning("missing-weights", ("tasks", key, "probe", "path"), fault)
        yield from _judge_task(registry, key, task, source, root)
    if mapping is not None:
        yield from _unserved(registry, mapping, source)


def _judge_task(
    registry: Registry, key: str, task: TaskSpec, source: _Source, root: Path
) -> Iterator[Finding]:
    if not task.label_set:
        yield source.warning("no-labels", ("tasks", key), "label_set is missing or empty")
    seen: set[tuple[str, str | None]] = set()
    for expert in registry.all_experts(key):
        for kind, reason in (
            ("adapter", _adapter_fault(expert, root)),
            ("template", _template_fault(expert, root)),
        ):
            if reason is None or (kind, reason) in seen:
                continue
            seen.add((kind, reason))
            code: Code = "missing-weights" if kind == "adapter" else "missing-template"
            name = f"{kind}_path"
            yield source.warning(code, (*_location_of(key, task, expert, name), name), reason)


def _location_of(key: str, task: TaskSpec, expert: Expert, name: str) -> Location:
    """The object in the registry that an expert has the path of that name from."""
    for index, entry in enumerate(task.experts):
        if entry.name == expert.name:
            return ("tasks", key, "experts", index)
    path = getattr(expert, name)
    for language, fields in task.language_mapping.items():
        if path != getattr(task, name) and path == getattr(fields, name):
            return ("tasks", key, "language_mapping", language)
    return ("tasks", key)


def _probe_fault(probe: Path, task: TaskSpec) -> str | None:
    """Why the coordinator will leave a probe out, as far as its files tell without an encoder."""
    weights, described = (probe.with_name(f"{probe.name}.{suffix}") for suffix in ("safetensors", "json"))
    for file in (weights, described):
        if not file.is_file():
            return f"there is no {file.absolute()}"
    try:
        labels = json.loads(described.read_text(encoding="utf-8"))["labels"]
        if sorted(labels) != sorted(task.label_set):
            return f"{described.absolute()} was made for other labels: train it anew with `mole train probe`"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{described.absolute()} cannot be read: {type(error).__name__}"
    return None


def _adapter_fault(expert: Expert, root: Path) -> str | None:
    """Why the expert's adapter cannot be loaded; None where it can, or where it needs none."""
    if expert.adapter_path is None:
        return None
    folder = resolve(root, expert.adapter_path)
    if not folder.is_dir():
        return f"there is no folder {folder.absolute()}"
    missing = [name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) if not (folder / name).is_file()]
    return f"{folder.absolute()} lacks {' and '.join(missing)}" if missing else None


def _template_fault(expert: Expert, root: Path) -> str | None:
    """Why the expert's prompt cannot be used; None where it can, or where the default prompt is used."""
    if expert.template_path is None:
        return None
    try:
        load_template(resolve(root, expert.template_path), expert.base_model_key)
    except ConfigError as error:
        return str(error)
    return None


def _unserved(registry: Registry, mapping: WorkerMapping, source: _Source) -> Iterator[Finding]:
    """Base models that a task needs and that no worker holds, each once."""
    needed: dict[str, str] = {}
    for key in registry.tasks:
        for expert in registry.all_experts(key):
            needed.setdefault(expert.base_model_key, key)
    for model_key, task_key in needed.items():
        if not mapping.workers_for(model_key):
            yield source.warning(
                "no-worker",
                ("base_models", model_key),
                f"no worker in the mapping serves it; {task_key} needs it",
            )


def _judge_mapping(mapping: WorkerMapping, source: _Source, registry: Registry | None) -> Iterator[Finding]:
    for key in mapping.model_extra or {}:
        yield source.warning("unknown-key", (key,), "unknown key, ignored")
    for worker_id, worker in mapping.workers.items():
        here: Location = ("workers", worker_id)
        for key in worker.model_extra or {}:
            if not jsonfile.is_comment(key):
                yield source.warning("unknown-key", (*here, key), "unknown key, ignored")
        if worker_id not in mapping.workers_for(worker.base_model_key):
            yield source.warning(
                "idle-worker", here, f"model_to_worker does not name it for {worker.base_model_key!r}"
            )
        elif registry is not None and worker.base_model_key not in registry.base_models:
            yield source.warning(
                "idle-worker",
                (*here, "base_model_key"),
                f"the registry declares no base model {worker.base_model_key!r}",
            )


def _is_folder(hf_name: str) -> bool:
    """Whether a base model is named by a folder and not by a name on the hub or an embedded one."""
    return hf_name.startswith(("/", "./", "../", "~"))

"""The registry: which base models, tasks and experts there are (`config/experts_registry.json`)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from moe_router import jsonfile
from moe_router.addresses import http_address
from moe_router.errors import UnknownTaskError
from moe_router.languages import language_code

logger = logging.getLogger(__name__)

MOST_REMEMBERED = 10_000
"""Pairs of task and language whose experts are looked up once."""
TASK_KEY = r"[^/\s]+/[^/\s]+"
MOST_KEY_CHARS = 200
"""Of a task's key in a request and an answer."""


def _known_language(name: str) -> str:
    language_code(name)
    return name


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("holds a character that cannot be printed")
    return name


PrintableName = Annotated[str, AfterValidator(_printable)]
"""A name that stands in logs, answers and requests to model servers."""


class Entry(BaseModel):
    """Base of the registry's objects: unknown keys are kept, warned about, and otherwise ignored."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_comments(cls, data: Any) -> Any:
        return jsonfile.without_comments(data)


class Generation(Entry):
    """How an expert generates, where it does not score labels."""

    max_new_tokens: PositiveInt = 256
    temperature: float = Field(0.0, ge=0.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    repetition_penalty: float = Field(1.0, gt=0.0)


class BaseModelSpec(Entry):
    """A base LLM."""

    hf_name: str = Field(min_length=1, description="A name on the hub, a folder, or `embedded:NAME`.")
    load_in_4bit: bool = False
    device_map: str | dict[str, Any] | None = None
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    engine: Literal["transformers", "openai"] = "transformers"
    base_url: str | None = Field(None, description="Of the `openai` engine: the server, with `/v1`.")

    @field_validator("base_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return http_address(value, "MOLE_ENGINE_API_KEY") if value else None

    @model_validator(mode="after")
    def _served_somewhere(self) -> BaseModelSpec:
        if self.engine == "openai" and not self.base_url:
            raise ValueError("the openai engine needs a base_url")
        return self


class ProbeSpec(Entry):
    """A linear head on gating's text encoding that can answer the task without a worker."""

    path: str = Field(min_length=1)

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        if ".." in Path(value).parts:
            raise ValueError("leads out of its folder")
        return value


class ExpertFields(Entry):
    """What `language_mapping` may override, and what names an expert's model, adapter and template."""

    base_model_key: str | None = None
    adapter_name: PrintableName | None = None
    adapter_path: str | None = None
    template_path: str | None = None


class ExpertEntry(ExpertFields):
    """One of several experts that a task offers."""

    name: PrintableName = Field(min_length=1)
    base_model_key: str
    languages: tuple[str, ...] | None = None
    cost: float = Field(1.0, ge=0.0, description="Relative cost of a call; a probe costs next to nothing.")

    @field_validator("languages")
    @classmethod
    def _codes(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(language_code(v) for v in value)


class TaskSpec(ExpertFields):
    """A task, its labels and its experts."""

    base_model_key: str
    kind: Literal["classification", "extraction"] = "classification"
    label_set: tuple[str, ...] = Field((), description="Labels, or the entity types of an extraction.")
    strict_label_decoding: bool = True
    description: str | None = None
    examples: tuple[str, ...] = ()
    supported_languages: tuple[str, ...] | None = None
    generation: Generation | None = None
    language_mapping: dict[Annotated[str, AfterValidator(_known_language)], ExpertFields] = Field(
        {}, description="Overrides of the task's own fields, by language as the file writes it."
    )
    experts: tuple[ExpertEntry, ...] = ()
    probe: ProbeSpec | None = None

    @field_validator("supported_languages")
    @classmethod
    def _codes(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(language_code(v) for v in value)

    @field_validator("language_mapping", mode="before")
    @classmethod
    def _without_comments(cls, value: Any) -> Any:
        return jsonfile.without_comments(value)

    @field_validator("language_mapping")
    @classmethod
    def _each_once(cls, value: dict[str, ExpertFields]) -> dict[str, ExpertFields]:
        written: dict[str, str] = {}
        for name in value:
            other = written.setdefault(language_code(name), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} are the same language")
        return value

    @field_validator("label_set")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or not all(value):
            raise ValueError("labels must be distinct and not empty")
        return value

    @cached_property
    def overrides(self) -> dict[str, ExpertFields]:
        """`language_mapping` by language code."""
        return {language_code(name): fields for name, fields in self.language_mapping.items()}


@dataclass(frozen=True, slots=True)
class Expert:
    """One adapter, template and label set on a base model, for one task."""

    name: str
    task_key: str
    base_model_key: str
    adapter_name: str | None
    adapter_path: str | None
    template_path: str | None
    languages: tuple[str, ...] | None
    cost: float

    def serves(self, language: str) -> bool:
        """Whether the expert states no languages, or this one among them."""
        return self.languages is None or language in self.languages


class Registry(Entry, jsonfile.CheckedModel):
    """The whole file."""

    default_generation: Generation = Generation()
    base_models: dict[PrintableName, BaseModelSpec]
    tasks: dict[PrintableName, TaskSpec] = Field(min_length=1)

    @field_validator("base_models", "tasks", mode="before")
    @classmethod
    def _without_comments(cls, value: Any) -> Any:
        return jsonfile.without_comments(value)

    def mistakes(self) -> Iterator[tuple[jsonfile.Location, str]]:
        """References that lead nowhere, task keys of the wrong form, and names that mean something else."""
        for key, task in self.tasks.items():
            if not re.fullmatch(TASK_KEY, key):
                yield ("tasks", key), "the task key is not of the form domain/task"
            elif len(key) > MOST_KEY_CHARS:
                yield ("tasks", key), f"the task key has more than {MOST_KEY_CHARS} characters"
            elif key.startswith("none/"):
                yield ("tasks", key), "the domain 'none' stands for what fits no task; choose another name"
            named: list[tuple[jsonfile.Location, str | None]] = [(("base_model_key",), task.base_model_key)]
            named += [
                (("language_mapping", language, "base_model_key"), fields.base_model_key)
                for language, fields in task.language_mapping.items()
            ]
            named += [
                (("experts", index, "base_model_key"), e.base_model_key)
                for index, e in enumerate(task.experts)
            ]
            for where, model_key in named:
                if model_key is not None and model_key not in self.base_models:
                    yield ("tasks", key, *where), f"names the undeclared base model {model_key!r}"
            names = [expert.name for expert in task.experts]
            if len(set(names)) != len(names):
                yield ("tasks", key, "experts"), "two experts have the same name"
            if "probe" in (expert.name for expert in self.all_experts(key)):
                yield (
                    ("tasks", key),
                    "an expert named 'probe' would be taken for the probe; choose another name",
                )

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains in the order of their first task."""
        return tuple(dict.fromkeys(key.split("/")[0] for key in self.tasks))

    def task(self, task_key: str) -> TaskSpec:
        """The task of that key.

        Raises:
            UnknownTaskError: there is none.
        """
        try:
            return self.tasks[task_key]
        except KeyError:
            raise UnknownTaskError(task_key, tuple(self.tasks)) from None

    def without_probes(self, task_keys: Iterable[str]) -> Registry:
        """The registry as if these tasks named no probe."""
        bare = {key: self.tasks[key].model_copy(update={"probe": None}) for key in task_keys}
        if not bare:
            return self
        # Not model_copy, which would take along what this one remembers of its tasks.
        fields = {name: getattr(self, name) for name in Registry.model_fields}
        return Registry.model_construct(**fields | {"tasks": self.tasks | bare})

    def experts_for(self, task_key: str, language: str) -> tuple[Expert, ...]:
        """The LLM experts that serve the task in the language, in the file's order."""
        known = self._serving.get((task_key, language))
        if known is None:
            task = self.task(task_key)
            known = tuple(e for e in self._experts(task_key, task, language) if e.serves(language))
            if len(self._serving) < MOST_REMEMBERED:  # languages come from callers
                self._serving[task_key, language] = known
        return known

    def all_experts(self, task_key: str) -> tuple[Expert, ...]:
        """Every LLM expert of the task, whatever the language."""
        known = self._all_experts.get(task_key)
        if known is None:
            known = self._all_experts[task_key] = self._every_expert(task_key)
        return known

    @cached_property
    def _serving(self) -> dict[tuple[str, str], tuple[Expert, ...]]:
        """What `experts_for` has found."""
        return {}

    @cached_property
    def _all_experts(self) -> dict[str, tuple[Expert, ...]]:
        """What `all_experts` has found."""
        return {}

    def _every_expert(self, task_key: str) -> tuple[Expert, ...]:
        task = self.task(task_key)
        found = list(self._experts(task_key, task, None))
        for language in task.overrides:
            found.extend(self._experts(task_key, task, language))
        return tuple(dict.fromkeys(found))

    def _experts(self, task_key: str, task: TaskSpec, language: str | None) -> list[Expert]:
        if task.experts:
            return [
                Expert(
                    e.name, task_key, e.base_model_key, e.adapter_name, e.adapter_path,
                    e.template_path or task.template_path, e.languages or task.supported_languages, e.cost,
                )
                for e in task.experts
            ]  # fmt: skip
        own = task.overrides.get(language) if language is not None else None
        model_key = (own and own.base_model_key) or task.base_model_key
        # An override that changes the model without naming an adapter must not inherit the other model's.
        inherits = own is None or own.base_model_key in (None, task.base_model_key)
        adapter_name = (own and own.adapter_name) or (task.adapter_name if inherits else None)
        adapter_path = (own and own.adapter_path) or (task.adapter_path if inherits else None)
        template_path = (own and own.template_path) or task.template_path
        # A language that the mapping names is served, whether or not supported_languages lists it too.
        languages = None if own is not None else task.supported_languages
        name = adapter_name or model_key
        return [Expert(name, task_key, model_key, adapter_name, adapter_path, template_path, languages, 1.0)]

    def languages_of(self, task_key: str) -> tuple[str, ...] | None:
        """ISO codes of every language that the task serves; None where it serves all."""
        if task_key not in self._languages:
            self._languages[task_key] = self._stated_languages(self.task(task_key))
        return self._languages[task_key]

    @cached_property
    def _languages(self) -> dict[str, tuple[str, ...] | None]:
        """What `languages_of` has found."""
        return {}

    @staticmethod
    def _stated_languages(task: TaskSpec) -> tuple[str, ...] | None:
        stated = [e.languages for e in task.experts] if task.experts else [task.supported_languages]
        if task.experts:
            stated = [languages or task.supported_languages for languages in stated]
        if any(languages is None for languages in stated):
            return None
        mapped = () if task.experts else tuple(task.overrides)
        return tuple(sorted({code for languages in stated for code in languages or ()} | set(mapped)))


def load_registry(path: Path) -> Registry:
    """Reads and validates the registry; unknown keys are logged once as warnings.

    Raises:
        ConfigError: with the file, the line, the JSON path and the reason.
    """
    registry = jsonfile.load_model(path, Registry)
    for where in unknown_keys(registry):
        logger.warning("%s: unknown key %s is ignored", path, where)
    return registry


def unknown_keys(registry: Registry) -> list[str]:
    """JSON paths of keys that the schema does not know."""
    return [jsonfile.json_path(location) for location in _extras(registry, ())]


def _extras(node: Any, where: jsonfile.Location) -> Iterator[jsonfile.Location]:
    if isinstance(node, Entry):
        yield from ((*where, key) for key in node.model_extra or {})
        for name in type(node).model_fields:
            yield from _extras(getattr(node, name), (*where, name))
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _extras(value, (*where, key))
    elif isinstance(node, tuple):
        for index, value in enumerate(node):
            yield from _extras(value, (*where, index))

"""The mapping: where the workers are (`config/expert_machine_mapping.json`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from moe_router import jsonfile
from moe_router.addresses import http_address

logger = logging.getLogger(__name__)


class WorkerSpec(BaseModel):
    """One worker: one process, one base model."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str = Field(description="Where the worker listens, such as http://10.8.100.28:8005.")
    base_model_key: str = Field(min_length=1)
    gpu_device: str | int | None = None
    machine: str | None = None
    note: str | None = None
    drain: bool = Field(False, description="Send it nothing new.")

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_address(value, "MOLE_WORKER_TOKEN")


class WorkerMapping(jsonfile.CheckedModel):
    """The whole file."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    workers: dict[str, WorkerSpec]
    model_to_worker: dict[str, tuple[str, ...]] = Field(
        description="Model key to one worker id or a list of replicas."
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_comments(cls, data: Any) -> Any:
        return jsonfile.without_comments(data)

    @field_validator("workers", mode="before")
    @classmethod
    def _without_comments(cls, value: Any) -> Any:
        return jsonfile.without_comments(value)

    @field_validator("model_to_worker", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = jsonfile.without_comments(value)
        return {key: (ids,) if isinstance(ids, str) else ids for key, ids in kept.items()}

    def mistakes(self) -> Iterator[tuple[jsonfile.Location, str]]:
        """Replicas that are not declared, or that hold another model."""
        for model_key, worker_ids in self.model_to_worker.items():
            for worker_id in worker_ids:
                worker = self.workers.get(worker_id)
                if worker is None:
                    yield ("model_to_worker", model_key), f"names the unknown worker {worker_id!r}"
                elif worker.base_model_key != model_key:
                    yield (
                        ("model_to_worker", model_key),
                        f"names {worker_id!r}, whose base_model_key is {worker.base_model_key!r}",
                    )

    def workers_for(self, model_key: str) -> tuple[str, ...]:
        """Ids of the workers that hold the model, each once, in the file's order."""
        return tuple(dict.fromkeys(self.model_to_worker.get(model_key, ())))


def load_mapping(path: Path) -> WorkerMapping:
    """Reads and validates the mapping.

    Raises:
        ConfigError: with the file, the line, the JSON path and the reason.
    """
    mapping = jsonfile.load_model(path, WorkerMapping)
    for key in mapping.model_extra or {}:
        logger.warning("%s: unknown key %s is ignored", path, jsonfile.json_path([key]))
    for worker_id, worker in mapping.workers.items():
        for key in worker.model_extra or {}:
            if not jsonfile.is_comment(key):
                logger.warning(
                    "%s: unknown key %s is ignored", path, jsonfile.json_path(["workers", worker_id, key])
                )
    return mapping

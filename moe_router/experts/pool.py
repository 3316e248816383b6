"""A worker's pool: one base model that stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moe_router.assets.cache import Progress, no_progress
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.errors import (
    ModelAssetError,
    NoWorkerError,
    UnknownExpertError,
    UnknownTaskError,
    UnsupportedLanguageError,
)
from moe_router.experts.engines.factory import make_engine
from moe_router.experts.model_host import MakeEngine, ModelHost, PoolConfig
from moe_router.registry import Expert, Registry
from moe_router.tally import SizeTally

__all__ = ["ExpertPool", "PoolConfig", "SingleModelPool"]


class ExpertPool(Protocol):
    """Answers expert requests, wherever their models are."""

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request; `deadline` in seconds of time.monotonic(), `caller` whose it is."""
        ...

    def queue_depth(self) -> int:
        """Jobs that are being made, wait or are being computed."""
        ...

    async def aclose(self) -> None:
        """Answers what was taken, then gives the memory back."""
        ...


class SingleModelPool:
    """One base model with all of the registry's experts on it; never evicted.

    Args:
        registry: where the experts are declared.
        model_key: the base model.
        config: how to run.
        engine_factory: loads the base model.

    Raises:
        ModelAssetError: the registry has no such base model.
    """

    def __init__(
        self, registry: Registry, model_key: str, config: PoolConfig, engine_factory: MakeEngine = make_engine
    ) -> None:
        if model_key not in registry.base_models:
            known = ", ".join(registry.base_models)
            raise ModelAssetError(f"the registry has no base model {model_key!r}; it has: {known}")
        self._registry = registry
        self._model_key = model_key
        self._host = ModelHost(registry, model_key, config, engine_factory)

    def preload(self, progress: Progress | None = None) -> None:
        """Loads the base model, then one TaskExpert for each expert on it; blocking.

        Raises:
            ModelAssetError: the base model cannot be loaded, or none of its experts can be served.
            ServerAwayError: its own server is not there; another pool may find it later.
        """
        self._host.load(progress or no_progress)
        if not self._host.experts:
            reasons = "; ".join(self._host.failures.values()) or "no task of the registry uses it"
            raise ModelAssetError(f"{self._model_key!r} serves no expert: {reasons}")

    def warm_up(self) -> None:
        """Asks every expert once; blocking. Zero-shot experts learn their bias by it."""
        self._host.warm_up()

    async def reload(self, registry: Registry) -> None:
        """Serves an edited registry without a restart; see `ModelHost.reload`.

        Raises:
            ModelAssetError: it cannot be served; all stays as it was.
        """
        await self._host.reload(registry)
        self._registry = registry

    def experts(self) -> tuple[Expert, ...]:
        """What is served."""
        return tuple(self._host.experts)

    def failures(self) -> dict[str, str]:
        """Why experts of this model are not served, by `task_key: name`."""
        return {f"{e.task_key}: {e.name}": reason for e, reason in self._host.failures.items()}

    def find(self, task_key: str, language: str, adapter_name: str | None = None) -> Expert:
        """The expert for a request: by its or its adapter's name, or else the registry's for the language.

        Raises:
            UnknownTaskError: the registry has no such task, or none of its experts is on this model.
            UnsupportedLanguageError: the task states its languages and this is none of them.
            UnknownExpertError: the task has no expert of that name here; the asker's registry may be another
                edit.
            NoWorkerError: it is on another model, or cannot be served: the reason names its files.
        """
        own = [e for e in self._registry.all_experts(task_key) if e.base_model_key == self._model_key]
        if not own:
            served = dict.fromkeys(expert.task_key for expert in self._host.experts)
            raise UnknownTaskError(task_key, tuple(served))
        if adapter_name is not None:
            return self._usable(self._named(own, task_key, language, adapter_name), task_key)
        for_language = self._registry.experts_for(task_key, language)
        if not for_language:
            stated = self._registry.languages_of(task_key) or ()
            raise UnsupportedLanguageError(task_key, language, stated)
        return self._usable([expert for expert in for_language if expert in own], task_key)

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        """Answers one request; see `ModelHost.classify`."""
        return await self._host.classify(expert, request, deadline=deadline, caller=caller)

    def queue_depth(self) -> int:
        """Jobs that are being made, wait or are being computed."""
        return self._host.queue_depth

    def batches(self) -> SizeTally:
        """How large the batches were."""
        return self._host.batches

    def cut(self) -> Mapping[str, int]:
        """By task, requests of which a text was too long to be read to its end."""
        return dict(self._host.cut)

    async def aclose(self) -> None:
        """Answers what was taken, then gives the memory back."""
        await self._host.aclose()

    def _named(self, own: list[Expert], task_key: str, language: str, name: str) -> list[Expert]:
        named = [expert for expert in own if name in (expert.adapter_name, expert.name)]
        if not named:
            known = dict.fromkeys(expert.adapter_name or expert.name for expert in own)
            raise UnknownExpertError(task_key, name, tuple(known))
        # An override of the language may share its adapter with the task's own expert.
        preferred = self._registry.experts_for(task_key, language)
        return sorted(named, key=lambda expert: (expert not in preferred, not expert.serves(language)))

    def _usable(self, wanted: list[Expert], task_key: str) -> Expert:
        for expert in wanted:
            if expert in self._host.experts:
                return expert
        reasons = [self._host.failures[expert] for expert in wanted if expert in self._host.failures]
        detail = "; ".join(reasons) or "the language's expert is on another base model"
        raise NoWorkerError(f"{task_key} cannot be served here: {detail}")

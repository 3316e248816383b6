"""The experts that a base model serves: made from the registry, and made anew where an edit changes them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from moe_router.errors import ModelAssetError, MoleError, NoWorkerError
from moe_router.experts import expert_file
from moe_router.experts.engines.base import Engine, OutOfMemoryError, ServerAwayError
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import Expert, Registry, TaskSpec

logger = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of the files that something is made of."""


@dataclass(frozen=True, slots=True)
class Served:
    """An expert that answers, the engine's name of its adapter, and what it was made of."""

    expert: TaskExpert
    adapter: str | None
    made_of: tuple[TaskSpec, Signature]


@dataclass(slots=True)
class Roster:
    """All experts of one base model.

    Attributes:
        served: those that answer.
        failures: why others do not.
        unmade: what those would have been made of.
        passing: those of them that a fault of the moment left out: memory was short, or the server failed.
        short_of_memory: whether one of them failed for want of memory.
        adapters: the engine's names of what is loaded, by folder and its files.
        serial: how many names were given so far; a name is never given twice.
    """

    served: dict[Expert, Served] = field(default_factory=dict)
    failures: dict[Expert, str] = field(default_factory=dict)
    unmade: dict[Expert, tuple[TaskSpec, Signature]] = field(default_factory=dict)
    passing: set[Expert] = field(default_factory=set)
    short_of_memory: bool = False
    adapters: dict[tuple[str, Signature], str] = field(default_factory=dict)
    serial: int = 0


class RosterBuilder:
    """Makes rosters for a base model on its engine.

    Args:
        model_key: the base model's key in the registry.
        engine: loads the adapters.
        adapter_root: relative adapter and template paths are taken from here.
        max_text_tokens: a classified text's limit.
        remote: whether adapters are a model server's, known by the registry's `adapter_name`.
    """

    def __init__(
        self,
        model_key: str,
        engine: Engine,
        adapter_root: Path,
        max_text_tokens: int,
        *,
        remote: bool = False,
    ) -> None:
        self._remote = remote
        self._model_key = model_key
        self._engine = engine
        self._root = adapter_root
        self._max_text_tokens = max_text_tokens

    def build(self, registry: Registry) -> Roster:
        """The roster at start: an expert that cannot be made is noted and does not take the others down.

        Raises:
            ServerAwayError: the model's own server is not there, which is no fault of an expert.
        """
        roster = Roster()
        for expert in self._declared(registry):
            task = registry.task(expert.task_key)
            try:
                self._add(roster, expert, task, None)
            except ServerAwayError:
                raise
            except Exception as error:  # noqa: BLE001  whatever is wrong with one, the others are served
                self._leave_out(roster, expert, (task, self._files(expert)), error)
        return roster

    def warm_up(self, roster: Roster) -> None:
        """Asks every expert once; one that fails is noted, and its adapter let go.

        Raises:
            ServerAwayError: as `build`.
        """
        for expert, served in list(roster.served.items()):
            started = time.monotonic()
            try:
                self._warm(served)
            except ServerAwayError:
                raise
            except Exception as error:  # noqa: BLE001  as in `build`
                del roster.served[expert]
                self._leave_out(roster, expert, served.made_of, error)
            else:
                spent_s = time.monotonic() - started
                logger.info("%s (%s) warmed up in %.2f s", expert.task_key, expert.name, spent_s)
        self._drop_unused(roster)

    def _drop_unused(self, roster: Roster, before: Roster | None = None) -> None:
        used = {served.adapter for served in roster.served.values()}
        kept = set() if before is None else set(before.adapters.values())
        for key in [key for key, name in roster.adapters.items() if name not in used]:
            name = roster.adapters.pop(key)
            if name not in kept:
                self._engine.unload_adapter(name)

    def _warm(self, served: Served) -> None:
        served.expert.warmed_up(self._engine.infer(served.expert.warm_up_jobs()))

    def _leave_out(
        self, roster: Roster, expert: Expert, made_of: tuple[TaskSpec, Signature], error: Exception
    ) -> None:
        roster.failures[expert], roster.unmade[expert] = told(error), made_of
        if isinstance(error, NoWorkerError | OutOfMemoryError):
            roster.passing.add(expert)
        roster.short_of_memory |= isinstance(error, OutOfMemoryError)
        logger.error("%s: expert %s cannot be served: %s", expert.task_key, expert.name, told(error))

    def rebuild(self, registry: Registry, before: Roster) -> Roster:
        """The roster after an edit; what did not change is taken over, what is new has run once.

        What was left out for a fault of the moment is tried again; if it fails again, that is no reason to
        refuse the edit.

        Raises:
            ModelAssetError: a new or changed expert cannot be made; what was loaded for it is gone again.
            ServerAwayError: the model's own server is not there now; the same.
            OutOfMemoryError: there is no room for it now; the same.
        """
        roster = Roster(serial=before.serial)
        for expert in self._declared(registry):
            try:
                self._add_or_keep(roster, expert, registry.task(expert.task_key), before)
            except Exception as error:
                self.discard(roster, before)
                if isinstance(error, ServerAwayError | OutOfMemoryError):
                    raise
                raise ModelAssetError(f"{expert.task_key}: expert {expert.name!r}: {told(error)}") from error
        self._drop_unused(roster, before)
        return roster

    def discard(self, roster: Roster, before: Roster) -> None:
        """Unloads what a roster has beyond the one before it."""
        for adapter in set(roster.adapters.values()) - set(before.adapters.values()):
            self._engine.unload_adapter(adapter)
        before.serial = roster.serial

    def _add_or_keep(self, roster: Roster, expert: Expert, task: TaskSpec, before: Roster) -> None:
        known, made_of = before.served.get(expert), (task, self._files(expert))
        failed_so = before.unmade.get(expert) == made_of
        if failed_so and expert not in before.passing:  # as bad as before: no reason to refuse the edit
            roster.failures[expert], roster.unmade[expert] = before.failures[expert], made_of
            return
        if known is not None and known.made_of == made_of:
            roster.served[expert] = known
            roster.adapters |= {key: name for key, name in before.adapters.items() if name == known.adapter}
            return
        try:
            self._warm(self._add(roster, expert, task, before))
        except Exception as error:
            roster.served.pop(expert, None)
            if not failed_so:
                raise
            self._leave_out(roster, expert, made_of, error)

    def _add(self, roster: Roster, expert: Expert, task: TaskSpec, before: Roster | None) -> Served:
        files = self._files(expert)
        adapter, trained = None, None
        if expert.adapter_path is not None:
            trained = expert_file.load(resolve(self._root, expert.adapter_path), task.label_set)
        if self._remote and expert.adapter_name is not None:
            adapter = self._adapter(roster, expert.adapter_name, (), before)
        elif expert.adapter_path is not None:
            folder = resolve(self._root, expert.adapter_path)
            adapter = self._adapter(roster, str(folder), signature(folder), before)
        template = None if expert.template_path is None else resolve(self._root, expert.template_path)
        made = TaskExpert(
            expert, task, template, self._engine.tokens, adapter,
            max_text_tokens=self._max_text_tokens, trained=trained,
        )  # fmt: skip
        roster.served[expert] = Served(made, adapter, (task, files))
        return roster.served[expert]

    def _adapter(self, roster: Roster, path: str, files: Signature, before: Roster | None) -> str:
        """The engine's name of the folder's adapter, loaded unless it is already."""
        key = (path, files)
        known = roster.adapters.get(key) or (before and before.adapters.get(key))
        if not known:
            known = f"{Path(path).name.replace('.', '_')}-{roster.serial}"  # peft wants names without dots
            roster.serial += 1
            self._engine.load_adapter(known, path)
        roster.adapters[key] = known
        return known

    def _files(self, expert: Expert) -> Signature:
        paths = [path for path in (expert.adapter_path, expert.template_path) if path is not None]
        return tuple(part for path in paths for part in signature(resolve(self._root, path)))

    def _declared(self, registry: Registry) -> list[Expert]:
        found = [e for key in registry.tasks for e in registry.all_experts(key)]
        return [expert for expert in found if expert.base_model_key == self._model_key]


def told(error: Exception) -> str:
    """Why, in words; an error that is none of ours with its kind."""
    return str(error) if isinstance(error, MoleError | ValueError) else f"{type(error).__name__}: {error}"


def signature(path: Path) -> Signature:
    """What tells a changed file, or folder of files, from an unchanged one; empty where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return tuple((file.name, status.st_size, status.st_mtime_ns) for file, status in found)


def resolve(root: Path, path: str) -> Path:
    """An absolute path as it is; a relative one from the root.

    A fleet that names its paths from a project's root (`src/experts/llms/adapters/…`) is understood as well:
    where nothing is at the whole path, what follows `adapters/` is taken from the root.
    """
    whole = root / Path(path).expanduser()
    _, found, rest = path.rpartition("adapters/")
    if found and not whole.exists() and (root / rest).exists():
        return root / rest
    return whole

"""What is edited while the coordinator loads."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.services.experts_local import LocalExperts
from app.services.router_sync import RouterSync
from app.services.runtime import MakeExperts, Runtime
from app.services.telemetry.metrics import Metrics
from app.settings import Settings
from moe_router.mapping import WorkerMapping
from moe_router.registry import Registry
from tests.stubs import files, pool
from tests.stubs.gating import StubGating
from tests.stubs.serving import until


def edited() -> dict[str, Any]:
    found = files.registry()
    del found["tasks"][files.GERMAN_ONLY]
    return found


class Scene:
    """A coordinator whose gating loads when it is let."""

    def __init__(self, folder: Path, make_experts: MakeExperts | None = None) -> None:
        self.registry_file, _ = files.write(folder, files.mapping("http://127.0.0.1:9"))
        self.loads = threading.Event()
        self.gating: StubGating | None = None
        settings = Settings(config_path=folder, service_mode="monolithic", state_dir=folder / "state")
        self.runtime = Runtime(settings, load_gating=self._load, make_experts=make_experts or local)

    def _load(self, registry: Registry, _settings: Settings) -> StubGating:
        assert self.loads.wait(30)
        self.gating = StubGating(registry)
        return self.gating

    async def edit(self) -> None:
        self.registry_file.write_text(json.dumps(edited()))
        assert self.runtime._watch is not None
        await self.runtime._watch.load()

    def tasks(self) -> set[str]:
        return set(self.gating.registry.tasks) if self.gating is not None else set()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        await self.runtime.start()
        try:
            yield
        finally:
            self.loads.set()
            await self.runtime.aclose()


def local(_settings: Settings, metrics: Metrics) -> LocalExperts:
    return LocalExperts(lambda registry: pool.StubPool(registry, files.MODEL), metrics)


async def test_an_edit_reaches_gating_until_the_moment_it_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)

    async def meanwhile(_sync: RouterSync, _gating: StubGating) -> None:
        await scene.edit()

    monkeypatch.setattr(RouterSync, "at_start", meanwhile)
    async with scene.started():
        scene.loads.set()
        await until(lambda: scene.runtime.status == "ready")
        assert scene.tasks() == set(edited()["tasks"])


async def test_gating_that_is_loaded_in_the_middle_of_an_edit_gets_it(tmp_path: Path) -> None:
    class Slow(LocalExperts):
        async def use(self, registry: Registry, mapping: WorkerMapping) -> None:
            await super().use(registry, mapping)
            if files.GERMAN_ONLY not in registry.tasks:
                scene.loads.set()
                await until(lambda: scene.runtime.status == "ready")

    def make(_settings: Settings, metrics: Metrics) -> LocalExperts:
        return Slow(lambda registry: pool.StubPool(registry, files.MODEL), metrics)

    scene = Scene(tmp_path, make)
    async with scene.started():
        await scene.edit()
        assert scene.tasks() == set(edited()["tasks"])

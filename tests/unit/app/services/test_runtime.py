"""What is edited while the coordinator loads."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.services import runtime
from app.services.experts_local import LocalExperts
from app.services.router_sync import RouterSync
from app.services.runtime import MakeExperts, Runtime
from app.services.telemetry.metrics import Metrics
from app.settings import Settings
from moe_router.errors import ModelAssetError
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
        self.faults: list[Exception] = []
        settings = Settings(config_path=folder, service_mode="monolithic", state_dir=folder / "state")
        self.runtime = Runtime(settings, load_gating=self._load, make_experts=make_experts or local)

    def _load(self, registry: Registry, _settings: Settings) -> StubGating:
        assert self.loads.wait(30)
        if self.faults:
            raise self.faults.pop(0)
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


@pytest.mark.parametrize("edits", [False, True])
async def test_gating_that_could_not_be_loaded_is_tried_again(
    tmp_path: Path, edits: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "FIRST_PAUSE_S", 60.0 if edits else 0.01)
    scene = Scene(tmp_path)
    scene.faults = [ModelAssetError("no weights")] * (1 if edits else 3) + [OSError("the volume")] * (
        not edits
    )
    scene.loads.set()
    async with scene.started():
        if edits:
            await until(lambda: scene.runtime.status == "failed")
            assert scene.runtime.detail == "no weights"
            await scene.edit()
        await until(lambda: scene.runtime.status == "ready")
        assert scene.tasks() == set((edited() if edits else files.registry())["tasks"])
        assert scene.runtime.detail is None
    assert caplog.text.count("no weights") == 1  # not with each try
    assert ("OSError: the volume" in caplog.text) is not edits


async def test_a_save_that_changes_nothing_has_what_it_names_looked_at_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.loads.set()
    async with scene.started():
        await until(lambda: scene.runtime.status == "ready")
        before = scene.gating.registry if scene.gating is not None else None
        assert scene.runtime._watch is not None
        await scene.runtime._watch.load()
        assert scene.gating is not None
        assert scene.gating.registry == before
        assert scene.gating.registry is not before

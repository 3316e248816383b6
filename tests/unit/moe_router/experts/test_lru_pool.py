from __future__ import annotations

import asyncio
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_router.contracts import ExpertAnswer
from moe_router.errors import ModelAssetError, NotReadyError, NoWorkerError, OverloadedError
from moe_router.experts.engines.base import OutOfMemoryError
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.load_failures import PAUSE_S
from moe_router.experts.lru_pool import LruModelPool
from moe_router.experts.memory import weights_bytes
from moe_router.experts.model_host import ModelHost, PoolConfig
from moe_router.registry import BaseModelSpec, Registry
from tests.unit.moe_router.experts.tasks import ask, edited


class Loads:
    """Counts what is loaded, and holds a load up until let go."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        self.names.append(Path(spec.hf_name).name[:5])
        assert self.go.wait(timeout=30)
        return make_engine(spec, options, progress)


async def test_requests_for_a_loading_model_wait_once(registry: Registry, config: PoolConfig) -> None:
    loads = Loads()
    loads.go.clear()
    pool = LruModelPool(registry, config, loads)
    [expert] = registry.all_experts("a/plain")
    waiting = [asyncio.create_task(pool.classify(expert, ask("a/plain", str(i)))) for i in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # one that leaves does not stop the load for the others
    loads.go.set()
    assert len(await asyncio.gather(*waiting[1:])) == 3
    assert loads.names == ["gemma"]
    await pool.aclose()
    with pytest.raises(NotReadyError):
        await pool.classify(expert, ask("a/plain"))


async def test_as_many_wait_for_a_load_as_for_the_model_and_a_flood_makes_room(
    registry: Registry, config: PoolConfig
) -> None:
    loads = Loads()
    loads.go.clear()
    pool = LruModelPool(registry, replace(config, max_queue=3), loads)
    [expert], [other] = registry.all_experts("a/plain"), registry.all_experts("a/other")

    def asking(by: str) -> asyncio.Task[ExpertAnswer]:
        return asyncio.create_task(pool.classify(expert, ask("a/plain"), caller=by))

    flood = [asking("flood") for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await pool.classify(expert, ask("a/plain"), caller="flood")
    single = asking("another")
    elsewhere = asyncio.create_task(pool.classify(other, ask("a/other"), caller="flood"))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await flood[-1]  # at once: nothing is loaded yet
    assert pool.queue_depth() == 4
    loads.go.set()
    assert len(await asyncio.gather(*flood[:-1], single, elsewhere)) == 4
    assert pool.queue_depth() == 0
    await pool.aclose()


async def test_of_the_threads_that_computed_one_stays(
    registry: Registry, config: PoolConfig, computed_in: set[threading.Thread]
) -> None:
    """See own_thread: each that stays makes the others' passes slower."""
    pool = LruModelPool(registry, config)
    [expert] = registry.all_experts("a/plain")
    await pool.classify(expert, ask("a/plain"))
    await pool.reload(edited(registry, "a/new", template_path="t.json"))
    await pool.classify(expert, ask("a/plain"))
    assert len(computed_in) == 3  # at the load, for the requests, at the edit
    for thread in computed_in:
        thread.join(0.0 if thread.name.startswith("engine") else 5.0)
    [stays] = [thread for thread in computed_in if thread.is_alive()]
    assert stays.name.startswith("engine")
    await pool.aclose()


async def test_models_stay_while_they_fit_and_the_least_recently_used_goes(
    registry: Registry, config: PoolConfig
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    roomy = LruModelPool(registry, config)
    await roomy.classify(gemma, ask("a/plain"))
    await roomy.classify(llama, ask("a/other"))
    assert roomy.loaded() == ("g", "l")
    await roomy.classify(gemma, ask("a/plain"))
    assert roomy.loaded() == ("l", "g")
    await roomy.aclose()

    loads = Loads()
    tight = LruModelPool(registry, replace(config, memory_budget_bytes=1), loads)
    for _ in range(2):
        await tight.classify(gemma, ask("a/plain"))
        assert tight.loaded() == ("g",)
        await tight.classify(llama, ask("a/other"))
        assert tight.loaded() == ("l",)
    assert len(loads.names) == 4
    assert tight.queue_depth() == 0
    await tight.aclose()


async def test_a_model_that_cannot_be_loaded_is_left_alone_and_costs_no_other_its_place(
    registry: Registry, config: PoolConfig
) -> None:
    now, loads, mended = [0.0], Loads(), [False]

    def make(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        if Path(spec.hf_name).name.startswith("llama") and not mended[0]:
            raise ModelAssetError("the disk is gone")
        return loads(spec, options, progress)

    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    pool = LruModelPool(registry, replace(config, memory_budget_bytes=1), make, lambda: now[0])
    for _ in range(3):
        with pytest.raises(NoWorkerError, match="the disk is gone"):
            await pool.classify(llama, ask("a/other"))
        await pool.classify(gemma, ask("a/plain"))
    assert loads.names == ["gemma"]
    assert dict(pool.failures()) == {"l": "the disk is gone"}
    assert (pool.may_answer("l"), pool.may_answer("g")) == (False, True)

    now[0], mended[0] = PAUSE_S, True
    assert pool.may_answer("l")
    await pool.classify(llama, ask("a/other"))
    assert pool.failures() == {}
    await pool.aclose()


async def test_a_model_that_does_not_close_well_is_no_fault_of_the_one_that_takes_its_place(
    registry: Registry, config: PoolConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    pool = LruModelPool(registry, replace(config, memory_budget_bytes=1))
    await pool.classify(gemma, ask("a/plain"))
    close = ModelHost.aclose

    async def closes_badly(host: ModelHost) -> None:
        await close(host)
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(ModelHost, "aclose", closes_badly)
    await pool.classify(llama, ask("a/other"))
    monkeypatch.undo()
    assert (pool.loaded(), pool.failures()) == (("l",), {})
    assert "did not close well" in caplog.text
    await pool.aclose()


async def test_after_an_edit_of_the_registry_a_load_that_failed_is_tried_anew(
    registry: Registry, config: PoolConfig
) -> None:
    tried = []

    def fails(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        tried.append(spec.hf_name)
        raise ModelAssetError("the disk is gone")

    pool = LruModelPool(registry, config, fails)
    [expert] = registry.all_experts("a/plain")
    for edits in (1, 2):
        for _ in range(2):
            with pytest.raises(NoWorkerError, match="the disk is gone"):
                await pool.classify(expert, ask("a/plain"))
        assert len(tried) == edits
        await pool.reload(registry)
    await pool.aclose()


async def test_models_that_make_room_for_each_other_refuse_nobody(
    registry: Registry, config: PoolConfig
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    tight = LruModelPool(registry, replace(config, memory_budget_bytes=1))
    asked = [
        tight.classify(expert, ask(expert.task_key, str(i))) for i in range(4) for expert in (gemma, llama)
    ]
    tasks = [asyncio.create_task(one) for one in asked]
    await asyncio.sleep(0)
    assert tight.queue_depth() == 8
    assert len(await asyncio.gather(*tasks)) == 8
    await tight.aclose()


class Watched:
    """Notes which models are open at each load; a load fails for want of memory beside another if told so."""

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone
        self.open: list[str] = []
        self.most = 0

    def __call__(self, spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        if self.alone and self.open:
            raise OutOfMemoryError("there is no room")
        engine = make_engine(spec, options, progress)
        self.open.append(spec.hf_name)
        self.most = max(self.most, len(self.open))
        close = engine.close

        def noted() -> None:
            self.open.remove(spec.hf_name)
            close()

        engine.close = noted  # type: ignore[method-assign]
        return engine


async def test_a_model_never_measured_makes_room_by_the_size_of_its_files(
    registry: Registry, config: PoolConfig, gemma_folder: Path, llama_folder: Path
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    budget = weights_bytes(gemma_folder) + weights_bytes(llama_folder) // 2
    watched = Watched()
    pool = LruModelPool(registry, replace(config, memory_budget_bytes=budget), watched)
    await asyncio.gather(pool.classify(gemma, ask("a/plain")), pool.classify(llama, ask("a/other")))
    assert watched.most == 1
    await pool.aclose()
    assert not watched.open


@pytest.mark.parametrize("where", ["load_adapter", "infer"])
async def test_an_expert_that_finds_no_room_lets_the_other_models_go(
    registry: Registry, config: PoolConfig, where: str
) -> None:
    watched = Watched()

    def make(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        engine = watched(spec, options, progress)
        if len(watched.open) > 1:

            def fails(*_given: object) -> None:
                raise OutOfMemoryError("there is no room")

            setattr(engine, where, fails)
        return engine

    [llama], tuned = registry.all_experts("a/other"), registry.experts_for("a/tuned", "de")[0]
    pool = LruModelPool(registry, config, make)
    await pool.classify(llama, ask("a/other"))
    answer = await pool.classify(tuned, ask("a/tuned"))
    assert answer.adapter_name == "tuned"
    assert len(pool.loaded()) == 1
    await pool.aclose()


async def test_out_of_memory_lets_the_other_models_go_and_tries_once_more(
    registry: Registry, config: PoolConfig
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    pool = LruModelPool(registry, config, Watched(alone=True))
    await pool.classify(gemma, ask("a/plain"))
    await pool.classify(llama, ask("a/other"))
    assert pool.loaded() == ("l",)
    await pool.aclose()

    def never(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        raise OutOfMemoryError("there is no room")

    pool = LruModelPool(registry, config, never)
    with pytest.raises(NoWorkerError, match="no room"):
        await pool.classify(gemma, ask("a/plain"))
    await pool.aclose()


class HalfLoaded:
    """Weights whose parts refer to each other, as a model's do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("alone", [True, False])
async def test_what_was_half_loaded_is_gone_before_anything_else_is_tried(
    registry: Registry, config: PoolConfig, alone: bool
) -> None:
    left: list[weakref.ref[HalfLoaded]] = []

    def make(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        assert not any(ref() for ref in left)
        if alone or (Path(spec.hf_name).name.startswith("llama") and not left):
            weights = HalfLoaded()
            left.append(weakref.ref(weights))
            raise OutOfMemoryError("there is no room")
        return make_engine(spec, options, progress)

    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    pool = LruModelPool(registry, config, make)
    if alone:
        with pytest.raises(NoWorkerError, match="no room"):
            await pool.classify(gemma, ask("a/plain"))
    else:
        await pool.classify(gemma, ask("a/plain"))
        await pool.classify(llama, ask("a/other"))
    assert [ref() for ref in left] == [None]
    await pool.aclose()


async def test_an_edit_keeps_models_in_memory_and_a_bad_one_is_refused_as_a_whole(
    registry: Registry, config: PoolConfig
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    loads = Loads()
    pool = LruModelPool(registry, config, loads)
    before = await pool.classify(gemma, ask("a/plain"))
    await pool.classify(llama, ask("a/other"))

    bad = edited(registry, "a/plain", adapter_name="x", adapter_path="two")
    bad = edited(bad, "a/other", base_model_key="l", adapter_name="y", adapter_path="no/adapter")
    with pytest.raises(ModelAssetError, match="a/other"):
        await pool.reload(bad)
    assert (await pool.classify(gemma, ask("a/plain"))).probabilities == before.probabilities

    good = edited(registry, "a/plain", adapter_name="x", adapter_path="two")
    await pool.reload(good)
    [tuned] = good.all_experts("a/plain")
    assert (await pool.classify(tuned, ask("a/plain"))).probabilities != before.probabilities
    assert len(loads.names) == 2
    await pool.aclose()


async def test_a_base_model_whose_entry_changed_is_loaded_anew_when_it_is_wanted(
    registry: Registry, config: PoolConfig
) -> None:
    [gemma] = registry.all_experts("a/plain")
    loads = Loads()
    pool = LruModelPool(registry, config, loads)
    await pool.classify(gemma, ask("a/plain"))
    data = registry.model_dump(exclude_defaults=True)
    data["base_models"]["g"]["torch_dtype"] = "bfloat16"
    await pool.reload(Registry.model_validate(data))
    assert pool.loaded() == ()
    await pool.classify(gemma, ask("a/plain"))
    assert loads.names == ["gemma", "gemma"]
    await pool.aclose()


@pytest.mark.parametrize("edited_since", ["", "in memory", "away"])
async def test_a_model_makes_room_for_what_its_load_took_until_its_entry_changes(
    registry: Registry, config: PoolConfig, edited_since: str
) -> None:
    [gemma], [llama] = registry.all_experts("a/plain"), registry.all_experts("a/other")
    budget = 10**9

    def make(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        engine: Any = make_engine(spec, options, progress)
        if "gemma" in spec.hf_name:
            engine.load_bytes = lambda: budget
        return engine

    pool = LruModelPool(registry, replace(config, memory_budget_bytes=budget), make)
    await pool.classify(gemma, ask("a/plain"))
    pool._let_go("g")
    if edited_since:
        if edited_since == "in memory":
            await pool.classify(gemma, ask("a/plain"))
        data = registry.model_dump(exclude_defaults=True)
        data["base_models"]["g"]["torch_dtype"] = "bfloat16"
        await pool.reload(Registry.model_validate(data))
    await pool.classify(llama, ask("a/other"))
    await pool.classify(gemma, ask("a/plain"))
    assert pool.loaded() == (("l", "g") if edited_since else ("g",))
    await pool.aclose()

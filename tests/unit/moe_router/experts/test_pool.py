from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_router.contracts import ExpertRequest
from moe_router.errors import (
    MissingFieldError,
    ModelAssetError,
    NotReadyError,
    NoWorkerError,
    OverloadedError,
    RequestError,
    UnknownTaskError,
    UnsupportedLanguageError,
)
from moe_router.experts.engines.base import Job, Outcome, OutOfMemoryError
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.extraction import windows_of
from moe_router.experts.model_host import PoolConfig
from moe_router.experts.pool import LruModelPool, SingleModelPool
from moe_router.experts.roster import resolve
from moe_router.registry import BaseModelSpec, Registry

TEXT = "Anna paid by card for the arrival"


def task(**more: Any) -> dict[str, Any]:
    return {"base_model_key": "g", "label_set": ["positive", "negative", "neutral"], **more}


@pytest.fixture
def config(tmp_path: Path, adapter_folders: tuple[Path, Path]) -> PoolConfig:
    (tmp_path / "t.json").write_text(json.dumps({"default": "Text: {{input}}\nLabel:"}))
    (tmp_path / "q.json").write_text(json.dumps({"default": "{{query}} {{input}}\nLabel:"}))
    (tmp_path / "bad.json").write_text(json.dumps({"default": "nothing"}))
    (tmp_path / "one").symlink_to(adapter_folders[0])
    (tmp_path / "two").symlink_to(adapter_folders[1])
    return PoolConfig(
        adapter_root=tmp_path, cache_dir=tmp_path / "cache", worker_id="w-1", max_text_tokens=64
    )


@pytest.fixture
def registry(gemma_folder: Path, llama_folder: Path) -> Registry:
    return Registry.model_validate(
        {
            "base_models": {"g": {"hf_name": str(gemma_folder)}, "l": {"hf_name": str(llama_folder)}},
            "tasks": {
                "a/plain": task(description="Judge the text."),
                "a/tuned": task(
                    adapter_name="tuned",
                    adapter_path="one",
                    template_path="t.json",
                    supported_languages=["en", "de"],
                    language_mapping={
                        "french": {"adapter_name": "tuned.fr", "adapter_path": "two"},
                        "chinese": {"base_model_key": "l"},
                    },
                ),
                "a/worded": task(
                    adapter_name="tuned",
                    adapter_path="one",
                    supported_languages=["en", "fr"],
                    language_mapping={"french": {"template_path": "t.json"}},
                ),
                "a/query": task(template_path="q.json"),
                "a/spans": task(kind="extraction", label_set=["PERSON", "EMAIL"]),
                "a/broken": task(adapter_name="gone", adapter_path="no/such/adapter"),
                "a/untold": task(template_path="bad.json"),
                "a/other": task(base_model_key="l"),
            },
        }
    )


@pytest.fixture
def pool(registry: Registry, config: PoolConfig) -> SingleModelPool:
    made = SingleModelPool(registry, "g", config)
    made.preload(None)
    made.warm_up()
    return made


def ask(task_key: str, text: str = TEXT, **more: Any) -> ExpertRequest:
    return ExpertRequest(task_key=task_key, text=text, language="en", return_probabilities=True, **more)


async def test_every_expert_of_the_model_is_served(pool: SingleModelPool) -> None:
    for expert in pool.experts():
        answer = await pool.classify(expert, ask(expert.task_key, fields={"query": "q"}, request_id="r-1"))
        assert (answer.worker_id, answer.model_key, answer.request_id) == ("w-1", "g", "r-1")
        assert answer.adapter_name == expert.adapter_name
        if expert.task_key == "a/spans":
            assert answer.result == "entities"
            assert answer.probabilities is None
            for entity in answer.entities or []:
                assert TEXT[entity.start : entity.end] == entity.value
        else:
            assert answer.probabilities is not None
            assert sum(answer.probabilities.values()) == pytest.approx(1.0)
            assert answer.probabilities[answer.result] == answer.confidence
    assert pool.queue_depth() == 0
    await pool.aclose()


async def test_a_zero_shot_expert_has_no_liking_for_a_text_that_says_nothing(pool: SingleModelPool) -> None:
    answer = await pool.classify(pool.find("a/plain", "en"), ask("a/plain", "N/A"))
    assert answer.confidence == pytest.approx(1 / 3, abs=1e-5)


async def test_probabilities_are_sent_only_where_asked_for(pool: SingleModelPool) -> None:
    request = ask("a/plain").model_copy(update={"return_probabilities": False})
    assert (await pool.classify(pool.find("a/plain", "en"), request)).probabilities is None


async def test_a_missing_field_is_the_callers_mistake(pool: SingleModelPool) -> None:
    with pytest.raises(MissingFieldError, match="query"):
        await pool.classify(pool.find("a/query", "en"), ask("a/query"))


async def test_a_long_extraction_is_read_in_windows(pool: SingleModelPool) -> None:
    text = "word " * 300 + "ann@example.org"
    answer = await pool.classify(pool.find("a/spans", "en"), ask("a/spans", text))
    assert ("EMAIL", "ann@example.org") in [(e.type, e.value) for e in answer.entities or []]


def test_find_picks_by_name_or_language(pool: SingleModelPool) -> None:
    assert pool.find("a/tuned", "de").adapter_name == "tuned"
    assert pool.find("a/tuned", "fr").adapter_name == "tuned.fr"
    assert pool.find("a/tuned", "en", "tuned.fr").adapter_name == "tuned.fr"
    assert pool.find("a/plain", "sw", "g").name == "g"
    for name in (None, "tuned"):
        assert pool.find("a/worded", "fr", name).template_path == "t.json"
        assert pool.find("a/worded", "en", name).template_path is None


def test_find_says_what_is_wrong(pool: SingleModelPool, config: PoolConfig) -> None:
    with pytest.raises(UnknownTaskError):
        pool.find("a/nothing", "en")
    with pytest.raises(UnknownTaskError):
        pool.find("a/other", "en")
    with pytest.raises(RequestError, match=r"tuned\.fr"):
        pool.find("a/tuned", "en", "someone")
    with pytest.raises(UnsupportedLanguageError):
        pool.find("a/tuned", "pl")
    with pytest.raises(NoWorkerError, match="another base model"):
        pool.find("a/tuned", "zh")
    with pytest.raises(NoWorkerError, match=str(config.adapter_root / "no/such/adapter")):
        pool.find("a/broken", "en")


async def test_broken_experts_are_reported_and_take_no_other_down(
    pool: SingleModelPool, registry: Registry, config: PoolConfig
) -> None:
    failures = pool.failures()
    assert str(config.adapter_root / "no/such/adapter") in failures["a/broken: gone"]
    assert str(config.adapter_root / "bad.json") in failures["a/untold: g"]
    assert len(failures) == 2
    [broken] = registry.all_experts("a/broken")
    with pytest.raises(NoWorkerError, match="no/such/adapter"):
        await pool.classify(broken, ask("a/broken"))


def test_a_model_the_registry_lacks_is_refused(registry: Registry, config: PoolConfig) -> None:
    with pytest.raises(ModelAssetError, match="it has: g, l"):
        SingleModelPool(registry, "x", config)


def test_a_model_without_a_single_usable_expert_is_refused(registry: Registry, config: PoolConfig) -> None:
    only = registry.model_copy(update={"tasks": {"a/broken": registry.tasks["a/broken"]}})
    with pytest.raises(ModelAssetError, match="no/such/adapter"):
        SingleModelPool(only, "g", config).preload(None)


class Flaky:
    """The real engine, which fails when told to."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.failure: Exception | None = None
        self.room = 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        if self.failure is not None:
            raise self.failure
        if len(jobs) > self.room:
            raise OutOfMemoryError("too many")
        found: list[Outcome] = self.inner.infer(jobs)
        return found


async def test_engine_failures_reach_the_caller_and_pass(registry: Registry, config: PoolConfig) -> None:
    made: list[Flaky] = []

    def flaky(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        made.append(Flaky(make_engine(spec, options, progress)))
        return made[-1]

    pool = SingleModelPool(registry, "g", config, flaky)
    pool.preload(None)
    pool.warm_up()
    expert = pool.find("a/plain", "en")
    made[0].failure = RuntimeError("device lost")
    with pytest.raises(RuntimeError, match="device lost"):
        await pool.classify(expert, ask("a/plain"))
    made[0].failure, made[0].room = None, 2
    answers = await asyncio.gather(*(pool.classify(expert, ask("a/plain", f"text {i}")) for i in range(9)))
    assert len(answers) == 9
    await pool.aclose()


class Held:
    """The real engine, which computes when let to."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.started = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        self.started.set()
        assert self.go.wait(timeout=30)
        found: list[Outcome] = self.inner.infer(jobs)
        return found


async def test_a_full_queue_refuses_before_it_reads_the_request(
    registry: Registry, config: PoolConfig
) -> None:
    made: list[Held] = []

    def held(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        made.append(Held(make_engine(spec, options, progress)))
        return made[-1]

    pool = SingleModelPool(registry, "g", replace(config, max_queue=1), held)
    pool.preload(None)
    pool.warm_up()
    made[0].go.clear()
    made[0].started.clear()
    plain = pool.find("a/plain", "en")
    asked = [asyncio.create_task(pool.classify(plain, ask("a/plain")))]
    assert await asyncio.to_thread(made[0].started.wait, timeout=30)
    asked.append(asyncio.create_task(pool.classify(plain, ask("a/plain"))))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):  # not MissingFieldError, which reading it would tell
        await pool.classify(pool.find("a/query", "en"), ask("a/query"))
    made[0].go.set()
    assert len(await asyncio.gather(*asked)) == 2
    await pool.aclose()


async def test_a_text_of_more_windows_than_the_queue_holds_is_read(
    registry: Registry, config: PoolConfig
) -> None:
    pool = SingleModelPool(registry, "g", replace(config, max_queue=2))
    pool.preload(None)
    text = "word " * 300 + "ann@example.org"
    assert len(windows_of(text)) > 2
    answer = await pool.classify(pool.find("a/spans", "en"), ask("a/spans", text))
    assert ("EMAIL", "ann@example.org") in [(e.type, e.value) for e in answer.entities or []]
    await pool.aclose()


async def test_a_request_that_was_accepted_is_answered_though_the_pool_closes(pool: SingleModelPool) -> None:
    asked = asyncio.create_task(pool.classify(pool.find("a/plain", "en"), ask("a/plain")))
    await asyncio.sleep(0)
    assert pool.queue_depth() == 1
    await pool.aclose()
    assert (await asked).result in ("positive", "negative", "neutral")


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
    fields = {name: getattr(config, name) for name in PoolConfig.__slots__}
    tight = LruModelPool(registry, PoolConfig(**{**fields, "memory_budget_bytes": 1}), loads)
    for _ in range(2):
        await tight.classify(gemma, ask("a/plain"))
        assert tight.loaded() == ("g",)
        await tight.classify(llama, ask("a/other"))
        assert tight.loaded() == ("l",)
    assert len(loads.names) == 4
    assert tight.queue_depth() == 0
    await tight.aclose()


async def test_a_model_that_cannot_be_loaded_is_no_worker(registry: Registry, config: PoolConfig) -> None:
    def fails(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        raise ModelAssetError("the disk is gone")

    pool = LruModelPool(registry, config, fails)
    [expert] = registry.all_experts("a/plain")
    for _ in range(2):  # and is tried anew
        with pytest.raises(NoWorkerError, match="the disk is gone"):
            await pool.classify(expert, ask("a/plain"))
    await pool.aclose()


def test_paths_of_another_root_are_understood(tmp_path: Path) -> None:
    (tmp_path / "finance").mkdir()
    assert resolve(tmp_path, "src/experts/llms/adapters/finance") == tmp_path / "finance"
    assert resolve(tmp_path, "finance") == tmp_path / "finance"
    assert resolve(tmp_path, "/abs") == Path("/abs")
    assert resolve(tmp_path, "adapters/none") == tmp_path / "adapters/none"


def edited(registry: Registry, task_key: str, **changes: Any) -> Registry:
    data = registry.model_dump(exclude_defaults=True)
    data["tasks"][task_key] = {**data["tasks"].get(task_key, task()), **changes}
    return Registry.model_validate(data)


async def probabilities(pool: SingleModelPool, task_key: str) -> dict[str, float]:
    answer = await pool.classify(pool.find(task_key, "en"), ask(task_key))
    assert answer.probabilities is not None
    return answer.probabilities


async def test_an_edit_is_served_without_a_restart_and_the_rest_stays(
    pool: SingleModelPool, registry: Registry
) -> None:
    plain, tuned = await probabilities(pool, "a/plain"), await probabilities(pool, "a/tuned")
    changed = edited(registry, "a/plain", adapter_name="second", adapter_path="two")
    await pool.reload(edited(changed, "a/new", template_path="t.json"))
    assert await probabilities(pool, "a/plain") != plain
    assert await probabilities(pool, "a/tuned") == tuned
    assert sum((await probabilities(pool, "a/new")).values()) == pytest.approx(1.0)
    await pool.reload(registry)
    assert await probabilities(pool, "a/plain") == pytest.approx(plain)
    with pytest.raises(UnknownTaskError):
        pool.find("a/new", "en")
    await pool.aclose()


async def test_a_bad_edit_is_refused_and_the_old_stays(pool: SingleModelPool, registry: Registry) -> None:
    plain, tuned = await probabilities(pool, "a/plain"), await probabilities(pool, "a/tuned")
    bad = edited(registry, "a/plain", adapter_name="x", adapter_path="two", template_path="t.json")
    bad = edited(bad, "a/tuned", adapter_path="no/adapter/here")
    with pytest.raises(ModelAssetError, match="a/tuned"):
        await pool.reload(bad)
    assert await probabilities(pool, "a/plain") == plain
    assert await probabilities(pool, "a/tuned") == tuned
    await pool.reload(edited(registry, "a/plain", adapter_name="x", adapter_path="two"))
    assert await probabilities(pool, "a/plain") != plain
    await pool.aclose()


async def test_an_adapters_new_files_are_served_once_the_registry_is_touched(
    pool: SingleModelPool, registry: Registry, config: PoolConfig
) -> None:
    before = await probabilities(pool, "a/tuned")
    (config.adapter_root / "one").unlink()
    (config.adapter_root / "one").symlink_to((config.adapter_root / "two").resolve())
    await pool.reload(registry)
    assert await probabilities(pool, "a/tuned") != before
    await pool.aclose()


async def test_requests_under_way_keep_the_adapter_that_they_began_with(
    pool: SingleModelPool, registry: Registry
) -> None:
    expert = pool.find("a/tuned", "en")
    before = await probabilities(pool, "a/tuned")
    under_way = [asyncio.create_task(pool.classify(expert, ask("a/tuned"))) for _ in range(20)]
    await asyncio.sleep(0)
    await pool.reload(edited(registry, "a/tuned", adapter_path="two"))
    for answer in await asyncio.gather(*under_way):
        assert answer.probabilities == pytest.approx(before, abs=1e-3)
    assert await probabilities(pool, "a/tuned") != pytest.approx(before, abs=1e-3)
    await pool.aclose()


async def test_another_base_model_needs_a_restart(pool: SingleModelPool, registry: Registry) -> None:
    data = registry.model_dump(exclude_defaults=True)
    data["base_models"]["g"]["torch_dtype"] = "bfloat16"
    with pytest.raises(ModelAssetError, match="restart"):
        await pool.reload(Registry.model_validate(data))
    await pool.aclose()

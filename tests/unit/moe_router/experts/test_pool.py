from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_router.errors import (
    MissingFieldError,
    ModelAssetError,
    NoWorkerError,
    OverloadedError,
    UnknownExpertError,
    UnknownTaskError,
    UnsupportedLanguageError,
    WorkerAnswerError,
)
from moe_router.experts.engines.base import Job, Outcome, OutOfMemoryError, ServerAwayError
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.model_host import PoolConfig
from moe_router.experts.pool import SingleModelPool
from moe_router.experts.roster import resolve
from moe_router.experts.text_words import windows_of
from moe_router.registry import BaseModelSpec, Registry
from tests.unit.moe_router.experts.tasks import TEXT, ask, edited


@pytest.fixture
def pool(registry: Registry, config: PoolConfig) -> SingleModelPool:
    made = SingleModelPool(registry, "g", config)
    made.preload(None)
    made.warm_up()
    return made


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


async def test_an_extraction_reads_all_it_decodes_over(pool: SingleModelPool) -> None:
    """Of 96 words like these, the model reads fewer at a time."""
    text = "\n".join(f"MIIEvQ{number}" for number in range(96)) + "\nAnn Lee" + " a" * 200
    expert = pool._host._roster.served[pool.find("a/spans", "en")].expert
    work = expert.prepare(ask("a/spans", text))
    assert not any(job.prompt.cut for job in work.jobs)
    assert {word.start for w in work.windows for word in w.words} >= {text.index("Ann"), text.index("Lee")}
    assert len(work.windows[0].words) < len(work.windows[-2].words), "the others stay as large"
    await pool.classify(pool.find("a/spans", "en"), ask("a/spans", text))
    assert pool.cut() == {}


async def test_a_long_field_beside_the_text_makes_no_more_windows(
    registry: Registry, config: PoolConfig
) -> None:
    queried = SingleModelPool(edited(registry, "a/spans", template_path="q.json"), "g", config)
    queried.preload(None)
    expert = queried._host._roster.served[queried.find("a/spans", "en")].expert
    work = expert.prepare(ask("a/spans", "a b c " * 8, fields={"query": "word " * 300}))
    assert all(job.prompt.cut for job in work.jobs), "the field is"
    assert len(work.jobs) == len(windows_of("a b c " * 8))


async def test_a_classified_text_that_is_too_long_is_told_without_its_words(
    pool: SingleModelPool, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("word " * 300, "word", "word " * 400):
        await pool.classify(pool.find("a/plain", "en"), ask("a/plain", text))
    assert pool.cut() == {"a/plain": 2}
    [told] = [record.getMessage() for record in caplog.records if "at most 64 tokens" in record.getMessage()]
    assert told.startswith("a/plain: ")
    assert "word" not in told


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
    with pytest.raises(UnknownExpertError, match=r"tuned\.fr"):
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


def test_paths_of_another_root_are_understood(tmp_path: Path) -> None:
    (tmp_path / "finance").mkdir()
    assert resolve(tmp_path, "src/experts/llms/adapters/finance") == tmp_path / "finance"
    assert resolve(tmp_path, "finance") == tmp_path / "finance"
    assert resolve(tmp_path, "/abs") == Path("/abs")
    assert resolve(tmp_path, "adapters/none") == tmp_path / "adapters/none"


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


class Spoilt(Flaky):
    """Fails, or answers with NaN, wherever an adapter is asked; or loads none."""

    def __init__(self, inner: Any, fault: str, error: Exception | None = None) -> None:
        super().__init__(inner)
        self.fault = fault
        self.error = error or RuntimeError("device lost")
        self.names: set[str] = set()

    def load_adapter(self, name: str, path: str) -> None:
        if self.fault == "load" and path.endswith("three"):
            raise OSError("the disk is gone")
        self.inner.load_adapter(name, path)
        self.names.add(name)

    def unload_adapter(self, name: str) -> None:
        self.inner.unload_adapter(name)
        self.names.discard(name)

    def infer(self, jobs: Sequence[Job]) -> list[Outcome]:
        asked = any(job.prompt.adapter for job in jobs)
        if asked and self.fault == "warm-up":
            raise self.error
        outcomes = super().infer(jobs)
        if asked and self.fault == "nan":
            return [None if outcome is None else outcome * float("nan") for outcome in outcomes]
        return outcomes


def spoilt_pool(registry: Registry, config: PoolConfig, fault: str) -> tuple[SingleModelPool, Spoilt]:
    made: list[Spoilt] = []

    def spoilt(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        made.append(Spoilt(make_engine(spec, options, progress), fault))
        return made[-1]

    pool = SingleModelPool(registry, "g", config, spoilt)
    pool.preload(None)
    pool.warm_up()
    return pool, made[0]


@pytest.mark.parametrize(("fault", "told"), [("warm-up", "RuntimeError: device lost"), ("nan", "NaN")])
async def test_an_expert_that_fails_to_warm_up_is_out_alone(
    registry: Registry, config: PoolConfig, fault: str, told: str
) -> None:
    pool, engine = spoilt_pool(registry, config, fault)
    assert told in pool.failures()["a/tuned: tuned"]
    assert not engine.names
    with pytest.raises(NoWorkerError, match=told):
        pool.find("a/tuned", "en")
    assert sum((await probabilities(pool, "a/plain")).values()) == pytest.approx(1.0)
    await pool.aclose()


@pytest.mark.parametrize("passing", [NoWorkerError("500"), OutOfMemoryError("full")])
async def test_what_a_fault_of_the_moment_left_out_is_tried_again(
    registry: Registry, config: PoolConfig, passing: Exception
) -> None:
    made: list[Spoilt] = []

    def spoilt(spec: BaseModelSpec, options: EngineOptions, progress: Any) -> Any:
        made.append(Spoilt(make_engine(spec, options, progress), "warm-up", passing))
        return made[-1]

    pool = SingleModelPool(registry, "g", config, spoilt)
    pool.preload(None)
    pool.warm_up()
    [engine] = made
    assert "a/tuned: tuned" in pool.failures()
    await pool.reload(edited(registry, "a/new"))  # fails again: the edit is served all the same
    assert sum((await probabilities(pool, "a/new")).values()) == pytest.approx(1.0)
    assert "a/tuned: tuned" in pool.failures()
    assert not engine.names
    engine.fault = ""
    await pool.reload(edited(registry, "a/newer"))
    assert "a/tuned: tuned" not in pool.failures()
    assert sum((await probabilities(pool, "a/tuned")).values()) == pytest.approx(1.0)
    await pool.aclose()


@pytest.mark.parametrize("passing", [ServerAwayError("away"), OutOfMemoryError("full")])
async def test_an_edit_that_fails_for_a_passing_reason_is_told_from_a_bad_one(
    registry: Registry, config: PoolConfig, passing: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, engine = spoilt_pool(registry, config, "")

    def failing(jobs: Sequence[Job]) -> list[Outcome]:
        raise passing

    monkeypatch.setattr(engine, "infer", failing)
    with pytest.raises(type(passing)):
        await pool.reload(edited(registry, "a/new"))
    await pool.aclose()


async def test_nan_at_a_request_is_a_bad_answer(registry: Registry, config: PoolConfig) -> None:
    pool, engine = spoilt_pool(registry, config, "")
    engine.fault = "nan"
    with pytest.raises(WorkerAnswerError, match="NaN"):
        await pool.classify(pool.find("a/tuned", "en"), ask("a/tuned"))
    await pool.aclose()


@pytest.mark.parametrize("fault", ["warm-up", "nan", "load"])
async def test_an_edit_that_fails_for_whatever_reason_leaves_no_adapter_behind(
    registry: Registry, config: PoolConfig, fault: str
) -> None:
    pool, engine = spoilt_pool(registry, config, "")
    (config.adapter_root / "three").symlink_to((config.adapter_root / "two").resolve())
    before = set(engine.names)
    engine.fault = fault
    bad = edited(registry, "a/new", adapter_name="n", adapter_path="one", template_path="t.json")
    bad = edited(bad, "a/plain", adapter_name="x", adapter_path="three")
    with pytest.raises(ModelAssetError):
        await pool.reload(bad)
    assert engine.names == before
    engine.fault = ""
    await pool.reload(bad)
    await pool.aclose()

"""The whole of gating on a tiny random encoder, with heads made so that what they decide is known."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from moe_router.errors import ModelAssetError, NoWorkerError, UnknownTaskError
from moe_router.gating import domain, qnetwork, task_router
from moe_router.gating import pipeline as pipeline_module
from moe_router.gating.assembly import Assembly
from moe_router.gating.encoder import Encoder
from moe_router.gating.ngrams import BUCKETS, IDENTITY, buckets
from moe_router.gating.pipeline import Decision, GatingConfig, GatingPipeline, Observation
from moe_router.gating.versions import RouterWeights, shipped_digest
from moe_router.gating.weights import Floats, Weights, save
from moe_router.registry import Registry
from tests.unit.moe_router.gating import made
from tests.unit.moe_router.gating.made import registry
from tests.unit.moe_router.tiny_encoder import HIDDEN

DESCRIPTIONS = {
    "a/x": "Will it be sunny tomorrow in the mountains?",
    "a/y": "Was möchte die Kundin von ihrer Bank?",
    "b/z": "Quels noms propres figurent ici ?",
}
NONE, OPEN = "Bake me an apple cake, please.", "How does the writer feel about it?"
NEW, NEW_EXAMPLE = "Welche Sportart kommt in dem Bericht vor?", "Which sport is this report about?"
TEXTS = {
    "a/x": "Clouds from the west will bring some rain in the evening.",
    "a/y": "Meine Karte ist seit drei Wochen nicht angekommen.",
    "b/z": "Anna Schmidt rencontre Paul Martin à Lyon.",
}
MOOD = {"a/x": "a/x", "a/y": "a/x", "b/z": "b/z"}


def write_models(folder: Path, encoder: Encoder, q: Weights | None = None) -> Path:
    """Heads that give each of the phrases above its class, and a probe that knows the texts."""

    def vectors(texts: Any) -> dict[str, Floats]:
        return dict(zip(texts, encoder.encode(list(texts.values())), strict=True))

    meta = {"encoder": encoder.identity, "hidden": encoder.hidden}
    described, read = vectors(DESCRIPTIONS), vectors(TEXTS)
    none, mood = encoder.encode([NONE, OPEN])
    tasks = made.nearest_head(described, none, {"generic/mood": (mood, MOOD)}, read, meta)
    tasks = Weights(
        tasks.arrays, dict(tasks.meta) | {"match": {"scale": 900.0, "bias": -400.0, "blend": 0.0}}
    )
    save(folder, task_router.WEIGHTS, tasks)
    grouped = {"a": described["a/x"], "b": described["b/z"]}
    domains = made.nearest_head(grouped, none, {}, {"a": read["a/x"], "b": read["b/z"]}, meta)
    save(folder, domain.WEIGHTS, domains)
    save(folder, qnetwork.WEIGHTS, q or made.q_weights(hidden=encoder.hidden, meta=meta))
    yes, no = encoder.encode([TEXTS["a/x"], TEXTS["a/y"]])
    rows = np.stack([yes, no])
    probe = {"weight": rows * 100, "bias": -(rows**2).sum(1) * 50}
    save(folder / "probes", "x", Weights(probe, meta | {"labels": ["yes", "no"], "temperature": 1.0}))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    return write_models(tmp_path_factory.mktemp("models"), Encoder(encoder_folder, threads=1))


Loader = Callable[..., GatingPipeline]


@pytest.fixture
async def load(models: Path, encoder_folder: Path, tmp_path: Path) -> AsyncIterator[Loader]:
    opened: list[GatingPipeline] = []

    def run(own: Registry | None = None, **changed: Any) -> GatingPipeline:
        config = GatingConfig(
            cache_dir=tmp_path, model_dir=models, encoder=str(encoder_folder), threads=1, max_tokens=64
        )
        opened.append(GatingPipeline.load(own or registry(), replace(config, **changed)))
        return opened[-1]

    yield run
    for pipeline in opened:
        await pipeline.aclose()


@pytest.fixture
def gating(load: Loader) -> GatingPipeline:
    return load()


def anywhere(_key: Any) -> bool:
    return True


async def ask(
    gating: GatingPipeline, text: str = TEXTS["a/y"], description: str | None = None, **options: Any
) -> Decision:
    return await gating.decide(text, description, **{"served": anywhere} | options)


def outcome(decision: Decision) -> tuple[Any, ...]:
    """All that a caller is told but the times."""
    return (
        decision.language, decision.domain, decision.task, decision.abstained,
        {k: round(v, 5) for k, v in decision.task_probabilities.items()},
        {k: round(v, 5) for k, v in decision.domain_probabilities.items()},
        round(decision.confidence, 5), [(s["step"], s["choice"]) for s in decision.steps],
    )  # fmt: skip


class TestADecisionThatTheCallerHasTaken:
    """Task and language are given and nothing is encoded: it is taken once, as long as it holds."""

    SAID = {"language": "en", "task": "a/y"}  # noqa: RUF012

    async def test_it_is_taken_once(self, gating):
        first, second = [await ask(gating, **self.SAID) for _ in range(2)]
        assert outcome(first) == outcome(second)
        assert await ask(gating, "other words", **self.SAID) is second
        assert second.timings.total == sum(step["ms"] for step in second.steps) == 0.0

    async def test_it_does_not_outlive_the_workers(self, gating):
        await ask(gating, **self.SAID)
        nowhere = await ask(gating, **self.SAID, served=lambda _: False)
        assert nowhere.abstained.reason == "expert_unavailable"
        assert (await ask(gating, **self.SAID)).abstained is None

    async def test_it_is_one_of_each_way_to_answer(self, load):
        gating = load(registry({"a/x": {"probe": {"path": "probes/x"}}, "a/y": {}, "b/z": {}}))
        own = {"language": "en", "task": "a/x"}
        assert (await ask(gating, **own, via="expert")).probe is None
        for via in ("auto", "probe", "expert"):
            found = await ask(gating, **own, via=via)
            assert (found.via, found.probe is None) == (via, via == "expert")

    async def test_it_does_not_outlive_the_registry_or_the_router(self, gating):
        for change in (gating.use_registry(registry()), gating.use_router(gating.shipped, 7)):
            await ask(gating, **self.SAID)
            await change
            found = await ask(gating, **self.SAID)
            assert found.router is gating.heads.router
        assert found.router_version == 7

    async def test_invented_languages_do_not_fill_it_for_ever(self, gating, monkeypatch):
        monkeypatch.setattr(pipeline_module, "MOST_REMEMBERED", 3)
        for code in ("en", "qaa", "qab", "qac", "qad"):
            await ask(gating, task="a/y", language=code)
        assert [language for _, language, _ in gating.heads.decided] == ["qab", "qac", "qad"]
        first, second = [await ask(gating, **self.SAID) for _ in range(2)]
        assert outcome(first) == outcome(second)
        assert len(gating.heads.decided) == 3

    async def test_what_will_be_refused_is_not_kept(self, load):
        gating = load(registry({"a/y": {"supported_languages": ["en"]}, "b/z": {}}))
        for code in ("de", "en"):
            await ask(gating, task="a/y", language=code)
        assert [language for _, language, _ in gating.heads.decided] == ["en"]


class TestWhatIsDecided:
    @pytest.mark.parametrize("task", DESCRIPTIONS)
    @pytest.mark.parametrize("text", TEXTS)
    async def test_the_description_names_the_task(self, gating, task, text):
        found = await ask(gating, TEXTS[text], DESCRIPTIONS[task])
        assert (found.task, found.domain, found.abstained) == (task, task[0], None)
        assert found.confidence > 0.9
        assert [(s["step"], s["choice"]) for s in found.steps] == [
            ("language", found.language), ("domain", task[0]), ("task", task),
        ]  # fmt: skip

    @pytest.mark.parametrize("task", TEXTS)
    @pytest.mark.parametrize("description", [None, "", " \n", "-", "?", "{}", "\u200b", "🙂"])
    async def test_without_a_description_the_text_does(self, gating, task, description):
        found = await ask(gating, TEXTS[task], description)
        assert found.task == task

    @pytest.mark.parametrize(("text", "task"), [("a/x", "a/x"), ("a/y", "a/x"), ("b/z", "b/z")])
    async def test_an_open_description_lets_the_text_decide(self, gating, text, task):
        assert (await ask(gating, TEXTS[text], OPEN)).task == task

    async def test_the_language_is_the_text_s_whatever_the_description_s(self, gating):
        found = [await ask(gating, TEXTS[t], DESCRIPTIONS["a/x"]) for t in TEXTS]
        assert [decision.language for decision in found] == ["en", "de", "fr"]

    async def test_distributions_sum_to_1(self, gating):
        for text in TEXTS.values():
            for description in (None, NONE, OPEN, *DESCRIPTIONS.values()):
                found = await ask(gating, text, description)
                assert sum(found.task_probabilities.values()) == pytest.approx(1.0, abs=1e-4)
                assert sum(found.domain_probabilities.values()) == pytest.approx(1.0, abs=1e-4)
                assert set(found.task_probabilities) == set(DESCRIPTIONS)
                assert set(found.domain_probabilities) == {"a", "b", "none"}

    @pytest.mark.parametrize(("stated", "code"), [("deu", "de"), ("nb", "no"), ("cmn", "zh")])
    async def test_any_code_of_a_language_reaches_its_experts(self, load, stated, code):
        own = load(registry({"a/y": {"supported_languages": ["de", "no", "zh"]}, "b/z": {}}))
        found = await ask(own, task="a/y", language=stated)
        assert (found.language, found.language_probability) == (code, 1.0)
        assert len(own.candidates(found, reachable=anywhere)) == 1

    async def test_to_state_und_is_to_state_nothing(self, gating):
        assert outcome(await ask(gating, language="und")) == outcome(await ask(gating))
        found = await ask(gating, "12345 👍", language="und")
        assert found.abstained.reason == "unknown_language"

    async def test_an_unknown_task_is_refused(self, gating):
        with pytest.raises(UnknownTaskError):
            await ask(gating, task="a/gone")


class TestAbstaining:
    async def test_what_fits_nothing_is_out_of_scope(self, gating):
        found = await ask(gating, TEXTS["a/x"], NONE)
        assert (found.task, found.domain) == (None, None)
        assert found.abstained.reason == "out_of_scope"
        assert set(found.abstained.nearest_tasks) == set(DESCRIPTIONS)
        assert found.confidence < 0.1
        assert gating.candidates(found, reachable=anywhere) == []
        with pytest.raises(ValueError, match="abstained"):
            gating.next_action(found, (), reachable=anywhere)

    async def test_a_task_that_the_registry_lacks_is_masked(self, load):
        found = await ask(load(registry(["a/x", "b/z"])), TEXTS["a/y"], DESCRIPTIONS["a/y"])
        assert found.abstained.reason == "out_of_scope"
        assert set(found.task_probabilities) == {"a/x", "b/z"}

    async def test_a_text_without_words_needs_a_description(self, gating):
        found = await ask(gating, "12345 👍")
        assert (found.language, found.abstained.reason) == ("und", "unknown_language")
        described = await ask(gating, "12345 👍", DESCRIPTIONS["a/y"])
        assert (described.language, described.task) == ("de", "a/y")
        assert described.language_probability <= 0.5
        fixed = await ask(gating, "12345 👍", language="en")
        assert fixed.abstained is None or fixed.abstained.reason != "unknown_language"
        assert (fixed.language, fixed.language_probability) == ("en", 1.0)

    async def test_a_task_that_states_its_languages_needs_the_texts_to_be_known(self, load):
        own = load(registry({"a/y": {"supported_languages": ["en", "de"]}, "b/z": {}}))
        found = await ask(own, "12345 👍", task="a/y")
        assert (found.task, found.abstained.reason) == (None, "unknown_language")
        assert found.abstained.nearest_tasks == ["a/y"]
        assert (await ask(own, "12345 👍", task="a/y", language="en")).abstained is None
        assert (await ask(own, "12345 👍", task="b/z")).abstained is None

    async def test_a_task_that_no_worker_serves(self, gating):
        for options in ({"description": DESCRIPTIONS["a/y"]}, {"task": "a/y"}):
            found = await ask(gating, TEXTS["a/y"], served=lambda key: key != "m", **options)
            assert (found.task, found.domain) == (None, "a")
            assert found.abstained.reason == "expert_unavailable"
            assert found.abstained.nearest_tasks == ["a/y"]
            assert "no worker of the mapping" in found.abstained.detail
            assert found.confidence > 0.9

    async def test_an_override_for_another_language_counts_as_served(self, load):
        own = registry({"a/y": {"language_mapping": {"fr": {"base_model_key": "n"}}}})
        found = await ask(load(own), TEXTS["a/y"], DESCRIPTIONS["a/y"], served=lambda key: key == "n")
        assert found.abstained is None


class TestEncodings:
    async def test_a_fresh_request_takes_one_pass(self, gating):
        for number, (task, description) in enumerate(DESCRIPTIONS.items(), 1):
            found = await ask(gating, TEXTS[task], description)
            assert (found.encoder_passes, gating.encoder.passes) == (1, number)
        assert (await ask(gating, TEXTS["a/x"])).encoder_passes == 1
        assert gating.encoder.passes == 4

    async def test_a_fixed_task_and_language_take_none(self, gating):
        found = await ask(gating, task="a/y", language="de", via="expert")
        assert (found.encoder_passes, gating.encoder.passes) == (0, 0)
        assert (found.task, found.language, found.confidence, found.domain) == ("a/y", "de", 1.0, "a")
        assert gating.next_action(found, (), reachable=anywhere).kind == "expert"

    async def test_a_known_description_that_says_it_all_takes_none(self, gating):
        first = await ask(gating, TEXTS["b/z"], DESCRIPTIONS["a/x"])
        second = await ask(gating, TEXTS["b/z"], DESCRIPTIONS["a/x"])
        assert (first.encoder_passes, second.encoder_passes, gating.encoder.passes) == (1, 0, 1)
        assert outcome(first) == outcome(second)
        assert (first.state.encodings == second.state.encodings).all()

    async def test_a_known_description_that_leaves_it_open_takes_one_for_the_text(self, gating):
        first, second = [await ask(gating, TEXTS["b/z"], OPEN) for _ in range(2)]
        assert (first.encoder_passes, second.encoder_passes, gating.encoder.passes) == (1, 1, 2)
        assert outcome(first) == outcome(second)

    async def test_a_decision_carries_what_was_encoded_and_by_which_encoder(self, gating):
        question = await ask(gating, TEXTS["b/z"], OPEN)
        bare = await ask(gating, TEXTS["b/z"])
        fixed = await ask(gating, task="a/y", language="de", via="expert")
        identity = gating.encoder.encoder.identity
        assert [d.encoder for d in (question, bare, fixed)] == [identity] * 3
        np.testing.assert_allclose(np.linalg.norm(question.description_vector), 1.0, atol=1e-5)
        np.testing.assert_allclose(question.text_vector, bare.text_vector, atol=1e-5)
        assert bare.description_vector is None
        assert fixed.description_vector is fixed.text_vector is None
        assert all(d.router_version is None for d in (question, bare, fixed))

    async def test_the_early_exit_can_be_switched_off(self, load):
        own = load(early_exit=1.1)
        assert [(await ask(own, description=DESCRIPTIONS["a/x"])).encoder_passes for _ in range(2)] == [1, 1]

    async def test_a_request_is_decided_alike_alone_and_among_others(self, load):
        requests = [(t, d) for t in TEXTS.values() for d in (None, NONE, OPEN, *DESCRIPTIONS.values())]
        alone = []
        for text, description in requests:
            alone.append(outcome(await ask(load(), text, description)))  # nothing cached
        together = load()
        found = await asyncio.gather(*(ask(together, *request) for request in requests * 3))
        assert [outcome(decision) for decision in found] == alone * 3
        assert together.encoder.passes < len(found)


class TestProbes:
    WITH_PROBE = {"a/x": {"probe": {"path": "probes/x"}}, "a/y": {}, "b/z": {}}  # noqa: RUF012

    @pytest.fixture
    def probing(self, load) -> GatingPipeline:
        return load(registry(self.WITH_PROBE))

    @pytest.mark.parametrize("via", ["auto", "probe"])
    async def test_it_answers_from_the_same_pass(self, probing, via):
        for passes in (1, 2):
            found = await ask(probing, TEXTS["a/x"], DESCRIPTIONS["a/x"], via=via)
            assert found.probe.label == "yes"
            assert (found.encoder_passes, probing.encoder.passes) == (1, passes)
        assert probing.next_action(found, (), reachable=lambda _: False).kind == "probe"

    async def test_a_fixed_task_takes_one_pass_for_it(self, probing):
        found = await ask(probing, TEXTS["a/y"], task="a/x", language="de")
        assert (found.probe.label, found.encoder_passes) == ("no", 1)

    async def test_who_wants_an_expert_gets_none(self, probing):
        found = await ask(probing, TEXTS["a/x"], DESCRIPTIONS["a/x"], via="expert")
        assert found.probe is None
        assert probing.next_action(found, (), reachable=anywhere).kind == "expert"
        with pytest.raises(NoWorkerError):
            probing.next_action(found, (), reachable=lambda _: False)

    async def test_it_needs_no_worker(self, probing):
        found = await ask(probing, TEXTS["a/x"], DESCRIPTIONS["a/x"], served=lambda _: False)
        assert found.abstained is None
        wanted = await ask(probing, TEXTS["a/x"], DESCRIPTIONS["a/x"], via="expert", served=lambda _: False)
        assert wanted.abstained.reason == "expert_unavailable"

    @pytest.mark.parametrize("task", ["a/y", None])
    async def test_who_insists_on_one_is_not_given_another_task_s(self, probing, task):
        found = await ask(probing, TEXTS["a/y"], DESCRIPTIONS["a/y"], via="probe", task=task)
        assert found.abstained.reason == "expert_unavailable"
        assert found.abstained.nearest_tasks == ["a/y"]
        assert "has no probe" in found.abstained.detail

    async def test_where_no_task_has_one_insisting_is_answered_too(self, gating):
        found = await ask(gating, TEXTS["a/y"], DESCRIPTIONS["a/y"], via="probe")
        assert (found.task, found.abstained.reason) == (None, "expert_unavailable")

    async def test_an_implausible_task_is_not_chosen_however_much_it_is_valued(
        self, load, tmp_path, encoder_folder
    ):
        encoder = Encoder(encoder_folder, threads=1)
        q = made.q_weights(
            {"probe": 5.0}, hidden=HIDDEN, meta={"encoder": encoder.identity, "hidden": HIDDEN}
        )
        own = load(registry(self.WITH_PROBE), model_dir=write_models(tmp_path / "own", encoder, q))
        found = await ask(own, TEXTS["a/x"], DESCRIPTIONS["b/z"])
        assert (found.task, found.abstained) == ("b/z", None)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"probe": {"path": "probes/gone"}}, "cannot be read"),
            ({"probe": {"path": "probes/x"}, "label_set": ["yes", "no", "maybe"]}, "other labels"),
        ],
    )
    async def test_one_that_cannot_be_used_is_left_out_and_said(self, load, caplog, change, reason):
        own = load(registry({"a/x": change, "a/y": {"probe": {"path": "probes/x"}}}))
        assert own.left_out == {"a/x"}
        assert "a/x goes without its probe: the" in caplog.text
        assert reason in caplog.text
        found = await ask(own, TEXTS["a/x"], DESCRIPTIONS["a/x"])
        assert (found.task, found.probe) == ("a/x", None)
        assert own.next_action(found, (), reachable=anywhere).kind == "expert"
        insisting = await ask(own, TEXTS["a/x"], DESCRIPTIONS["a/x"], via="probe")
        assert "has no probe" in insisting.abstained.detail
        assert (await ask(own, TEXTS["a/x"], task="a/y")).probe.label == "yes"

    async def test_one_for_another_encoder_is_refused(self, load, models, tmp_path):
        shutil.copytree(models / "probes", tmp_path / "mine")
        described = tmp_path / "mine" / "x.json"
        described.write_text(json.dumps(json.loads(described.read_text("utf-8")) | {"encoder": "another"}))
        with pytest.raises(ModelAssetError, match="made for the encoder 'another'"):
            load(registry({"a/x": {"probe": {"path": str(tmp_path / "mine" / "x")}}}))

    async def test_it_may_lie_elsewhere(self, load, models, tmp_path):
        shutil.copytree(models / "probes", tmp_path / "mine")
        own = load(registry({"a/x": {"probe": {"path": str(tmp_path / "mine" / "x")}}}))
        assert (await ask(own, TEXTS["a/x"], task="a/x")).probe.label == "yes"


class Held:
    """An encoder whose next pass waits until it is let go."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.started, self.go = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str]) -> Any:
        self.started.set()
        self.go.wait()
        return self._encoder.encode(texts)


class TestReloading:
    async def test_a_decision_under_way_finishes_on_the_old_registry(self, gating):
        held = Held(gating.encoder.encoder)
        gating.encoder.encoder = held  # type: ignore[assignment]
        under_way = asyncio.create_task(ask(gating, TEXTS["a/y"], DESCRIPTIONS["a/y"]))
        await asyncio.to_thread(held.started.wait)
        old = gating.registry
        await gating.use_registry(registry(["a/x", "b/z"]))
        held.go.set()
        found = await under_way
        assert found.task == "a/y"
        assert found.router.registry is old
        action = gating.next_action(found, (), reachable=anywhere)
        assert action.expert.task_key == "a/y"
        assert [e.task_key for e in gating.candidates(found, reachable=anywhere)] == ["a/y"]
        seen = Observation(action, "yes", 0.5)
        assert gating.next_action(found, (seen,), reachable=anywhere).kind == "accept"
        later = await ask(gating, TEXTS["a/y"], DESCRIPTIONS["a/y"])
        assert later.abstained.reason == "out_of_scope"
        with pytest.raises(UnknownTaskError):
            await ask(gating, task="a/y")

    async def test_a_new_task_is_found_by_its_phrasings(self, gating):
        before = await ask(gating, TEXTS["a/x"], NEW_EXAMPLE)
        assert before.task != "c/sport"
        new = {key: {} for key in DESCRIPTIONS} | {"c/sport": {"description": NEW, "examples": [NEW_EXAMPLE]}}
        await gating.use_registry(registry(new))
        for phrase in (NEW, NEW_EXAMPLE):
            found = await ask(gating, TEXTS["a/x"], phrase)
            assert (found.task, found.domain) == ("c/sport", "c")
        assert (await ask(gating, TEXTS["a/x"], DESCRIPTIONS["a/y"])).task == "a/y"

    async def test_phrasings_are_encoded_once(self, gating):
        new = registry({"a/x": {"description": NEW, "examples": [NEW_EXAMPLE, NEW]}})
        await gating.use_registry(new)
        calls: list[Any] = []
        real = gating.encoder.encoder.encode
        gating.encoder.encoder.encode = lambda texts: calls.append(texts) or real(texts)  # type: ignore[method-assign]
        await gating.use_registry(new)
        assert calls == []

    async def test_one_that_cannot_be_used_leaves_the_old_one_in_force(self, gating, monkeypatch):
        old = gating.registry
        with monkeypatch.context() as patched:
            patched.setattr(gating.encoder.encoder, "encode", Mock(side_effect=MemoryError))
            with pytest.raises(MemoryError):
                await gating.use_registry(registry({"a/x": {"description": NEW}}))
        assert gating.registry is old
        assert (await ask(gating, TEXTS["a/y"])).task == "a/y"

    async def test_of_two_edits_the_later_one_stays(self, gating, monkeypatch):
        slow = registry({"a/x": {"description": NEW}, "a/y": {}})
        quick = registry(["b/z"])
        held = Held(copy.copy(gating.encoder.encoder))
        monkeypatch.setattr(gating.encoder.encoder, "encode", held.encode)
        first = asyncio.create_task(gating.use_registry(slow))
        await asyncio.to_thread(held.started.wait)
        second = asyncio.create_task(gating.use_registry(quick))
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(first, second)
        assert gating.registry is quick

    async def test_a_task_that_nothing_describes_is_pointed_out(self, load, caplog):
        with caplog.at_level(logging.WARNING):
            own = load(registry({"a/x": {}, "c/mute": {}, "c/dash": {"description": " - "}}))
        for task in ("c/mute", "c/dash"):  # what says nothing draws what is asked of other tasks
            assert f"task {task} has no description and no weights" in caplog.text
        assert "a/x" not in caplog.text
        assert (await ask(own, task="c/mute")).task == "c/mute"


class TestModels:
    @pytest.mark.parametrize("name", [domain.WEIGHTS, task_router.WEIGHTS, qnetwork.WEIGHTS])
    async def test_weights_for_another_encoder_are_refused(self, load, models, tmp_path, name):
        own = Path(shutil.copytree(models, tmp_path / "other"))
        meta = json.loads((own / f"{name}.json").read_text())
        (own / f"{name}.json").write_text(json.dumps(meta | {"encoder": "big@1"}))
        with pytest.raises(ModelAssetError, match=rf"{name}\.safetensors was made for the encoder 'big@1'"):
            load(model_dir=own)
        (own / f"{name}.json").write_text(json.dumps(meta | {"hidden": 384}))
        with pytest.raises(ModelAssetError, match=f"expect vectors of 384, the encoder makes {HIDDEN}"):
            load(model_dir=own)
        (own / f"{name}.safetensors").unlink()
        with pytest.raises(ModelAssetError, match="cannot be read"):
            load(model_dir=own)

    async def test_the_risk_that_is_allowed_sets_the_threshold(self, load, models, tmp_path):
        own = Path(shutil.copytree(models, tmp_path / "own"))
        meta = json.loads((own / "task.json").read_text())
        curve = [
            {"threshold": 0.999999, "coverage": 0, "risk": 0},
            {"threshold": 0.1, "coverage": 1, "risk": 1},
        ]
        (own / "task.json").write_text(json.dumps(meta | {"coverage_risk": curve, "temperature": 9.0}))
        strict, loose = (load(model_dir=own, target_risk=risk) for risk in (0.0, 1.0))
        found = [await ask(g, TEXTS["a/x"], DESCRIPTIONS["a/y"]) for g in (strict, loose)]
        assert found[0].abstained.reason == "low_confidence"
        assert found[1].task == "a/y"

    async def test_closing_twice_is_closing(self, gating):
        await gating.aclose()
        await gating.aclose()


class TestAnotherRouter:
    """Weights learned from feedback."""

    async def test_it_decides_from_then_on_and_decisions_carry_its_version(self, gating):
        own = gating.learned
        turned = dict(own.tasks.arrays)
        order = [1, 0, *range(2, len(turned["describe.bias"]))]
        turned["describe.weight"] = turned["describe.weight"][order]
        turned["describe.bias"] = turned["describe.bias"][order]
        before = await ask(gating, TEXTS["a/x"], DESCRIPTIONS["a/x"])
        await gating.use_router(RouterWeights(Weights(turned, own.tasks.meta), own.q_weights), 7)
        after = await ask(gating, TEXTS["a/x"], DESCRIPTIONS["a/x"])
        assert (before.task, before.router_version) == ("a/x", None)
        assert (after.task, after.router_version) == ("a/y", 7)
        await gating.use_registry(registry())
        assert (await ask(gating, TEXTS["a/x"], DESCRIPTIONS["a/x"])).task == "a/y"
        await gating.use_router(gating.shipped)
        assert (await ask(gating, TEXTS["a/x"], DESCRIPTIONS["a/x"])).router_version is None

    async def test_no_file_of_a_probe_is_read_for_it(self, load, models, tmp_path):
        own = Path(shutil.copytree(models, tmp_path / "own"))
        gating = load(registry({"a/x": {"probe": {"path": "probes/x"}}, "b/z": {}}), model_dir=own)
        shutil.rmtree(own / "probes")
        await gating.use_router(gating.shipped, 7)
        found = await ask(gating, TEXTS["a/x"], task="a/x")
        assert (found.router_version, found.probe.label) == (7, "yes")

    @pytest.mark.parametrize("part", ["tasks", "q_weights"])
    async def test_one_of_another_encoder_is_refused_and_the_old_stays(self, gating, part):
        given = {"tasks": gating.learned.tasks, "q_weights": gating.learned.q_weights}
        given[part] = Weights(given[part].arrays, dict(given[part].meta) | {"encoder": "other"})
        with pytest.raises(ModelAssetError, match="made for the encoder 'other'"):
            await gating.use_router(RouterWeights(**given), 7)
        assert (await ask(gating, TEXTS["a/y"])).router_version is None

    async def test_one_of_other_dimensions_is_refused_and_the_old_stays(self, gating):
        own = gating.learned
        arrays = dict(own.q_weights.arrays) | {"2.bias": np.zeros(99, np.float32)}
        with pytest.raises(ModelAssetError, match="other dimensions"):
            await gating.use_router(RouterWeights(own.tasks, Weights(arrays, own.q_weights.meta)), 7)
        assert gating.learned is own
        assert (await ask(gating, TEXTS["a/y"])).router_version is None

    def test_a_router_of_other_weights_can_be_made_beside_it(self, gating):
        assert gating.shipped_digest == shipped_digest(gating.config.model_dir)
        assert gating.router_of(gating.shipped) is not gating.heads.router
        assert gating.router_of(gating.shipped).registry is gating.registry

    async def test_the_phrasings_are_stacked_once_for_a_registry(self, gating, monkeypatch):
        made = []
        stack = Assembly.prototypes

        def counted(assembly: Assembly, of: Registry) -> object:
            made.append(of)
            return stack(assembly, of)

        monkeypatch.setattr(Assembly, "prototypes", counted)
        other = registry()
        await gating.use_registry(other)
        gating.router_of(gating.shipped)
        assert made == [other]


async def test_the_words_of_a_description_are_a_second_opinion(load, models, tmp_path):
    told = shutil.copytree(models, tmp_path / "told")
    weight = np.zeros((BUCKETS, 3), np.float32)
    weight[buckets("zebra"), 0] = 50.0
    meta = {"encoder": IDENTITY, "hidden": BUCKETS, "classes": ["a/x", "b/z", "none"]}
    arrays = {"weight": weight, "bias": np.zeros(3, np.float32)}
    save(told, "wording", Weights(arrays, meta | {"weight": 1.0, "temperature": 1.0}))
    before, after = load(), load(model_dir=told)
    text = TEXTS["a/y"]

    async def share(gating: GatingPipeline, description: str) -> float:
        found = await gating.decide(text, description, language="de", served=lambda _: True)
        return found.task_probabilities["a/x"]

    assert await share(after, "zebra") > 10 * await share(before, "zebra")
    sure = await after.decide(text, DESCRIPTIONS["a/x"], language="de", served=lambda _: True)
    assert sure.task == "a/x", "what the encoder is sure of stays"
    bare = await after.decide(text, None, language="de", served=lambda _: True)
    assert bare.task == "a/y", "without a description there are no words to judge by"


def test_damaged_wording_is_refused(load, models, tmp_path):
    told = shutil.copytree(models, tmp_path / "told")
    (told / "wording.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelAssetError, match="wording"):
        load(model_dir=told)

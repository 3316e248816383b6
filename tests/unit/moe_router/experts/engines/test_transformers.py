from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig, OPTConfig, OPTForCausalLM

from moe_router.contracts import ExpertRequest
from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import (
    Decision,
    DecodeJob,
    Decoder,
    LabelJob,
    OutOfMemoryError,
    infer_halving,
)
from moe_router.experts.engines.cpu_products import rounded_rows
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import MAX_HEADS, NEGLIGIBLE, TransformersEngine
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import LabelTrie
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import BaseModelSpec, Expert, TaskSpec
from tests.unit.moe_router.experts import tiny

FEW = ["positive", "negative", "neutral"]
MANY = [f"card {a} {b} {c}" for a in ("lost", "late") for b in ("fee", "arrival", "pin") for c in ("x", "y")]
PARTED = [f"{a} {b} {c}" for a in "abcdefgh" for b in ("fee", "arrival") for c in "xy"]
"""Labels that part at their first token already, where an engine begins to leave the least likely out."""
SHORT = Template("Text: {{input}}\nLabel:")
LONG = Template("Some words of a text that come before. Text: card payment Label: neutral\n{{input}} =>")
ADAPTERS = (None, "first", "second")


def load(folder: Path) -> TransformersEngine:
    model, tokenizer = load_model(folder, BaseModelSpec(hf_name=str(folder), torch_dtype="float32"))
    return TransformersEngine(model, HfTokens(tokenizer, max_text_tokens=200))


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path, adapter_folders: tuple[Path, Path]) -> TransformersEngine:
    engine = load(gemma_folder)
    for name, folder in zip(("first", "second"), adapter_folders, strict=True):
        engine.load_adapter(name, str(folder))
    return engine


@pytest.fixture(scope="module")
def llama(llama_folder: Path) -> TransformersEngine:
    return load(llama_folder)


def job(
    engine: TransformersEngine,
    text: str,
    template: Template = SHORT,
    labels: list[str] = FEW,
    adapter: str | None = None,
) -> LabelJob:
    prompt = engine.tokens.prompt(template, {"input": text}, adapter)
    sequences = [engine.tokens.encode(template.label_prefix + label, trusted=False) for label in labels]
    return LabelJob(prompt, LabelTrie(sequences, engine.tokens.line_end))


def probabilities(engine: TransformersEngine, *jobs: LabelJob) -> list[Any]:
    return [np.exp(outcome) for outcome in engine.infer(jobs)]


def brute_force(engine: TransformersEngine, asked: LabelJob) -> list[float]:
    """Every label's whole sequence through the plain model, without cache, mask or packing."""
    prompt = [*asked.prompt.head, *asked.prompt.tail]
    found = []
    for sequence in asked.trie.sequences:
        with torch.inference_mode():
            logits = engine._model(torch.tensor([[*prompt, *sequence]])).logits[0].double()
        at, score = 0, 0.0
        for step, token in enumerate(sequence):
            children = asked.trie.nodes[at].children
            allowed = logits[len(prompt) - 1 + step][list(children)]
            score += float(torch.log_softmax(allowed, 0)[list(children).index(token)])
            at = children[token]
        found.append(math.exp(score))
    return found


@pytest.mark.parametrize("name", ["gemma", "llama"])
@pytest.mark.parametrize("labels", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("template", [SHORT, LONG], ids=["short", "long"])
def test_packed_trie_scoring_equals_brute_force(
    request: pytest.FixtureRequest, name: str, labels: list[str], template: Template
) -> None:
    engine: TransformersEngine = request.getfixturevalue(name)
    asked = job(engine, "a text that is longer than the sliding window of sixteen tokens", template, labels)
    # What must be exact shares its prompt's pass; else a trie of this size takes a second one.
    exact = replace(asked, exact=True)
    assert probabilities(engine, exact)[0] == pytest.approx(brute_force(engine, asked), abs=1e-5)
    found = probabilities(engine, *[asked] * 8)[3]
    # A big trie's least likely branches are not read; the bound is on what that may change.
    assert found == pytest.approx(brute_force(engine, asked), abs=NEGLIGIBLE + 1e-5)
    assert found.sum() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=40),
            st.sampled_from([SHORT, LONG]),
            st.sampled_from([FEW, MANY]),
            st.sampled_from(ADAPTERS),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_request_gets_the_same_alone_and_in_any_mixed_batch(
    gemma: TransformersEngine, asked: list[tuple[str, Template, list[str], str | None]]
) -> None:
    jobs = [job(gemma, *one) for one in asked]
    together = probabilities(gemma, *jobs)
    for one, found in zip(jobs, together, strict=True):
        assert found == pytest.approx(probabilities(gemma, one)[0], abs=1e-3)
        assert found.sum() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def sure(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    """A model that is sure of itself, as trained ones are: most labels have next to no probability."""
    model, tokenizer = load_model(
        llama_folder, BaseModelSpec(hf_name=str(llama_folder), torch_dtype="float32")
    )
    with torch.no_grad():
        model.lm_head.weight *= 2
    engine = TransformersEngine(model, HfTokens(tokenizer, max_text_tokens=200))
    engine.load_adapter(
        "first", str(tiny.save_adapter(tmp_path_factory.mktemp("sure"), llama_folder, "llama"))
    )
    return engine


def an_expert(engine: TransformersEngine, adapter: str | None, temperature: float) -> TaskExpert:
    task = TaskSpec.model_validate({"base_model_key": "g", "label_set": PARTED})
    trained = ExpertFile(labels=task.label_set, template="Text: {{input}}\nLabel:\n", temperature=temperature)
    declared = Expert("x", "a/b", "g", adapter, None, None, None, 1.0)
    made = TaskExpert(declared, task, None, engine.tokens, adapter, trained=trained)
    made.warmed_up(engine.infer(made.warm_up_jobs()))
    return made


@pytest.mark.parametrize(
    ("adapter", "temperature"), [(None, 1.0), ("first", 4.0)], ids=["prior", "temperature"]
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1, max_size=40), min_size=8, max_size=12))
def test_what_magnifies_little_probabilities_answers_the_same_alone_and_in_any_batch(
    sure: TransformersEngine, adapter: str | None, temperature: float, texts: list[str]
) -> None:
    expert = an_expert(sure, adapter, temperature)
    works = [expert.prepare(ExpertRequest(task_key="a/b", text=text, language="en")) for text in texts]
    together = sure.infer([job for work in works for job in work.jobs])
    for work, outcome in zip(works, together, strict=True):
        alone = expert.finish(work, sure.infer(work.jobs)).probabilities
        assert expert.finish(work, [outcome]).probabilities == pytest.approx(alone, abs=1e-3)


def test_on_a_cpu_passes_come_in_few_lengths(gemma: TransformersEngine) -> None:
    seen = []
    decoder = gemma._packed._decoder
    hook = decoder.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        for count in range(1, 40):
            gemma.infer([job(gemma, "x" * count, SHORT, FEW, adapter) for adapter in ADAPTERS])
    finally:
        hook.remove()
    assert {rounded_rows(length) for length in seen} == set(seen)


def test_adapters_answer_differently_and_leave_the_base_alone(
    gemma: TransformersEngine, gemma_folder: Path
) -> None:
    plain = probabilities(load(gemma_folder), job(gemma, "card payment"))[0]
    base, first, second = probabilities(
        gemma, *(job(gemma, "card payment", adapter=name) for name in ADAPTERS)
    )
    assert base == pytest.approx(plain, abs=1e-6)
    assert np.abs(first - base).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3


@pytest.fixture
def passes(gemma: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass of that engine has."""
    found: list[int] = []
    forward = gemma._packed.forward

    def counted(tokens: Any, *rest: Any) -> torch.Tensor:
        found.append(len(tokens))
        return forward(tokens, *rest)

    monkeypatch.setattr(gemma._packed, "forward", counted)
    return found


def test_adapters_share_a_pass(gemma: TransformersEngine, passes: list[int]) -> None:
    jobs = [job(gemma, text, adapter=name) for name in ADAPTERS for text in ("card payment", "a text")]
    alone = [probabilities(gemma, one)[0] for one in jobs]
    passes.clear()
    together = probabilities(gemma, *jobs[::2], *jobs[1::2])
    assert len(passes) == 1
    for mine, theirs in zip([*alone[::2], *alone[1::2]], together, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "more"),
    # The output layer of the tiny Llama is its own, that of Gemma is the embedding.
    [("gemma", {"use_dora": True}), ("llama", {"target_modules": ["q_proj", "lm_head"]})],
)
def test_an_adapter_that_is_more_than_plain_lora_is_left_to_peft(
    request: pytest.FixtureRequest,
    adapter_folders: tuple[Path, Path],
    tmp_path: Path,
    kind: str,
    more: dict[str, Any],
) -> None:
    from peft import PeftModel

    base: Path = request.getfixturevalue(f"{kind}_folder")
    folder = tiny.save_adapter(tmp_path / "odd", base, kind, **more)
    engine = load(base)
    engine.load_adapter("plain", str(adapter_folders[0]))
    engine.load_adapter("odd", str(folder))
    asked = [job(engine, "card payment", adapter=name) for name in ("plain", "odd", None)]
    together = probabilities(engine, *asked)
    model, _ = load_model(base, BaseModelSpec(hf_name=str(base), torch_dtype="float32"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        wrapped: Any = PeftModel.from_pretrained(model, str(folder))
    assert together[1] == pytest.approx(brute_force_with(wrapped, asked[1]), abs=1e-5)
    for one, answer in zip(asked, together, strict=True):
        assert probabilities(engine, one)[0] == pytest.approx(answer, abs=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_on_layers_that_see_no_batch_is_as_pefts(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    own = tiny.tokenizer()
    torch.manual_seed(3)
    shape = OPTConfig(
        vocab_size=len(own), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, init_std=0.4,
    )  # fmt: skip
    OPTForCausalLM(shape).save_pretrained(tmp_path / "base")
    own.save_pretrained(tmp_path / "base")
    spec = BaseModelSpec(hf_name=str(tmp_path / "base"), torch_dtype="float32")
    wrapped = get_peft_model(
        load_model(spec.hf_name, spec)[0], LoraConfig(r=2, target_modules=["fc1", "fc2"])
    )
    for name, weights in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.5)
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    engine = load(tmp_path / "base")
    engine.load_adapter("own", str(tmp_path / "adapter"))
    asked = [job(engine, "card payment", adapter=name) for name in ("own", None)] * 2
    together = probabilities(engine, *asked)
    model: Any = PeftModel.from_pretrained(load_model(spec.hf_name, spec)[0], str(tmp_path / "adapter"))
    assert together[0] == pytest.approx(brute_force_with(model, asked[0]), abs=1e-5)
    assert together[0] != pytest.approx(together[1], abs=1e-2)
    assert together[2] == pytest.approx(probabilities(engine, asked[0])[0], abs=1e-5)


@pytest.mark.parametrize(
    "config", [CohereConfig(logit_scale=0.25), GraniteConfig(logits_scaling=8.0)], ids=["Cohere", "Granite"]
)
def test_logits_that_a_model_scales_are_scaled(config: Any) -> None:
    own = tiny.tokenizer()
    config.update({
        "vocab_size": len(own), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4, "pad_token_id": 0,
    })  # fmt: skip
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    engine = TransformersEngine(model, HfTokens(own, max_text_tokens=200))
    asked = job(engine, "card payment")
    assert probabilities(engine, asked)[0] == pytest.approx(brute_force(engine, asked), abs=1e-5)


def test_a_name_that_is_taken_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    engine = load(llama_folder)
    folders = [tiny.save_adapter(tmp_path / str(s), llama_folder, "llama", seed=s) for s in (1, 2)]
    engine.load_adapter("own", str(folders[0]))
    before = probabilities(engine, job(engine, "card payment", adapter="own"))[0]
    with pytest.raises(ModelAssetError, match="unload it first"):
        engine.load_adapter("own", str(folders[1]))
    assert probabilities(engine, job(engine, "card payment", adapter="own"))[0].tolist() == before.tolist()


def test_an_adapter_that_is_gone_is_not_answered_by_the_base_model(
    gemma_folder: Path, adapter_folders: tuple[Path, Path]
) -> None:
    engine = load(gemma_folder)
    engine.load_adapter("first", str(adapter_folders[0]))
    base = probabilities(engine, job(engine, "card payment"))[0]
    engine.unload_adapter("first")
    assert probabilities(engine, job(engine, "card payment"))[0] == pytest.approx(base, abs=1e-6)
    with pytest.raises(ModelAssetError, match="'first' is not loaded"):
        engine.infer([job(engine, "card payment", adapter="first")])


def test_an_adapter_is_what_peft_makes_of_it(
    gemma: TransformersEngine, gemma_folder: Path, adapter_folders: tuple[Path, Path]
) -> None:
    from peft import PeftModel

    model, _ = load_model(gemma_folder, BaseModelSpec(hf_name=str(gemma_folder), torch_dtype="float32"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        wrapped: Any = PeftModel.from_pretrained(model, str(adapter_folders[0]))
    asked = job(gemma, "card payment", adapter="first")
    assert probabilities(gemma, asked)[0] == pytest.approx(brute_force_with(wrapped, asked), abs=1e-5)


def brute_force_with(model: Any, asked: LabelJob) -> list[float]:
    class Shim:
        _model = model

    return brute_force(Shim(), asked)  # type: ignore[arg-type]


def test_a_head_is_read_once_and_the_oldest_goes(llama_folder: Path) -> None:
    engine = load(llama_folder)
    before = engine.memory_bytes()
    probabilities(engine, job(engine, "a"), job(engine, "b"))
    assert len(engine._heads) == 1
    assert engine.memory_bytes() > before
    for index in range(MAX_HEADS + 3):
        probabilities(engine, job(engine, "a", Template(f"Head {index}: {{{{input}}}}\nLabel:")))
    assert len(engine._heads) == MAX_HEADS


def test_decoders_run_in_lock_step_with_labels(gemma: TransformersEngine) -> None:
    chosen: dict[str, list[int]] = {"a": [], "b": []}

    def decoder(name: str, steps: int) -> Decoder:
        feed: tuple[int, ...] = ()
        for _ in range(steps):
            scores = yield Decision(feed, (7, 8, 9, 10))
            assert np.exp(scores).sum() == pytest.approx(1.0)
            feed = (7 + int(np.argmax(scores)),)
            chosen[name] += feed

    def decode_job(name: str, steps: int, text: str) -> DecodeJob:
        return DecodeJob(gemma.tokens.prompt(SHORT, {"input": text}, None), lambda: decoder(name, steps))

    gemma.infer([decode_job("a", 5, "one"), job(gemma, "x"), decode_job("b", 2, "another text")])
    together, chosen = chosen, {"a": [], "b": []}
    gemma.infer([decode_job("a", 5, "one")])
    gemma.infer([decode_job("b", 2, "another text")])
    assert together == chosen
    assert [len(steps) for steps in chosen.values()] == [5, 2]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch(
    error: Exception, gemma: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(gemma, text) for text in ("one", "two", "three", "four", "five")]
    expected = probabilities(gemma, *jobs)
    forward = gemma._packed.forward

    def tight(tokens: Any, *rest: Any) -> torch.Tensor:
        if len(tokens) > 2 * len(jobs[2].prompt.tail) + 2 * len(jobs[2].trie.context):
            raise error
        return forward(tokens, *rest)

    monkeypatch.setattr(gemma._packed, "forward", tight)
    with pytest.raises(OutOfMemoryError):
        gemma.infer(jobs)
    for found, whole in zip(infer_halving(gemma, jobs), expected, strict=True):
        assert np.exp(found) == pytest.approx(whole, abs=1e-5)  # type: ignore[arg-type]


def test_what_a_pass_held_is_free_when_memory_is_given_back(
    gemma: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def full(*_given: Any) -> torch.Tensor:
        activations = torch.zeros(9)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gemma._packed, "forward", full)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.append(any(ref() is not None for ref in held))
    )
    [outcome] = infer_halving(gemma, [job(gemma, "x")])
    assert isinstance(outcome, OutOfMemoryError)
    assert alive
    assert not any(alive)


def test_kept_heads_make_room_for_a_job_that_does_not_fit_alone(
    gemma: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = probabilities(gemma, job(gemma, "x", LONG), job(gemma, "x"))
    forward, tried = gemma._packed.forward, []

    def tight(*given: Any) -> torch.Tensor:
        tried.append(len(gemma._heads))
        if len(gemma._heads) > 1:
            raise torch.OutOfMemoryError
        return forward(*given)

    monkeypatch.setattr(gemma._packed, "forward", tight)
    assert probabilities(gemma, job(gemma, "x"))[0] == pytest.approx(expected[1], abs=1e-5)
    assert tried[0] > tried[1] == 1


def test_what_decoding_fed_beyond_a_jobs_cost_is_told(gemma: TransformersEngine) -> None:
    def decoder(steps: int) -> Decoder:
        for _ in range(steps):
            yield Decision((65, 66, 67), (70, 71))

    prompt = gemma.tokens.prompt(SHORT, {"input": "x"}, None)
    jobs = [DecodeJob(prompt, lambda steps=steps: decoder(steps), 4) for steps in (0, 1, 5)]  # type: ignore[misc]
    assert gemma.infer(jobs) == [0, 0, 11]


def spoil_nothing(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def spoil_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def spoil_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 100)


def spoil_type(folder: Path) -> None:
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 2', '"r": 4'))


@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_config, spoil_weights, spoil_type])
def test_an_unusable_adapter_is_named_with_its_path_and_does_no_harm(
    gemma_folder: Path, adapter_folders: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    for file in adapter_folders[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    engine = load(gemma_folder)
    before = probabilities(engine, job(engine, "x"))[0]
    with pytest.raises(ModelAssetError) as caught:
        engine.load_adapter("broken", str(tmp_path))
    assert "'broken'" in caught.value.detail
    assert str(tmp_path) in caught.value.detail
    assert probabilities(engine, job(engine, "x"))[0] == pytest.approx(before, abs=1e-6)
    engine.load_adapter("first", str(adapter_folders[0]))
    assert np.abs(probabilities(engine, job(engine, "x", adapter="first"))[0] - before).max() > 1e-4


def test_a_model_that_ignores_masks_is_refused(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_model(
        llama_folder, BaseModelSpec(hf_name=str(llama_folder), torch_dtype="float32")
    )
    decoder = type(model.get_decoder())
    honest = decoder.forward

    def blind(self: Any, *args: Any, attention_mask: Any = None, **rest: Any) -> Any:
        return honest(self, *args, **rest)

    monkeypatch.setattr(decoder, "forward", blind)
    with pytest.raises(ModelAssetError, match="cannot be served"):
        TransformersEngine(model, HfTokens(tokenizer, max_text_tokens=20))


def test_a_model_that_leaves_no_room_for_a_pass_is_out_of_memory(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(llama_folder, BaseModelSpec(hf_name=str(llama_folder)))

    def full(*_given: Any, **_more: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(type(model), "forward", full)
    with pytest.raises(OutOfMemoryError, match="first pass"):
        TransformersEngine(model, HfTokens(tokenizer, max_text_tokens=20))


def test_closing_lets_the_model_go(llama_folder: Path) -> None:
    engine = load(llama_folder)
    engine.close()
    assert engine._model is None


def test_four_bit_without_cuda_is_a_logged_warning(
    llama_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    load_model(llama_folder, BaseModelSpec(hf_name=str(llama_folder), load_in_4bit=True))
    assert "load_in_4bit is ignored" in caplog.text


def test_four_bit_without_cuda_is_refused_where_it_is_required(llama_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    spec = BaseModelSpec(hf_name=str(llama_folder), load_in_4bit=True)
    with pytest.raises(ModelAssetError, match="no CUDA device"):
        load_model(llama_folder, spec, require_4bit=True)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelAssetError, match=str(tmp_path)):
        load_model(tmp_path, BaseModelSpec(hf_name=str(tmp_path), torch_dtype="float32"))


def test_pickled_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path, "llama")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelAssetError, match="convert them to safetensors"):
        load_model(folder, BaseModelSpec(hf_name=str(folder)))


def test_what_must_be_exact_takes_one_pass(gemma: TransformersEngine, passes: list[int]) -> None:
    jobs = [job(gemma, f"text {index}", labels=MANY) for index in range(8)]
    probabilities(gemma, *jobs)  # the head
    passes.clear()
    two = probabilities(gemma, *jobs)
    assert len(passes) == 2
    one = probabilities(gemma, *(replace(job, exact=True) for job in jobs))
    assert len(passes) == 3
    for found, wanted in zip(one, two, strict=True):
        assert found == pytest.approx(wanted, abs=NEGLIGIBLE + 1e-5)


def test_whether_a_trie_takes_a_second_pass_hangs_on_nothing_but_itself(
    gemma: TransformersEngine, passes: list[int]
) -> None:
    jobs = [replace(job(gemma, f"text {index}", labels=MANY), exact=index > 0) for index in range(9)]
    probabilities(gemma, *jobs)  # the head
    for asked, number in ((jobs, 2), (jobs[:1], 2), (jobs[1:], 1)):
        passes.clear()
        probabilities(gemma, *asked)
        assert len(passes) == number

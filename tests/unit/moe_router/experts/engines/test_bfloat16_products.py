from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.experts.engines import bfloat16_products, factory, loading, transformers
from moe_router.experts.engines.base import Decision, DecodeJob, Decoder, LabelJob, OutOfMemoryError
from moe_router.experts.engines.bfloat16_products import Bfloat16Linear, keeps_rows_apart, use_bfloat16
from moe_router.experts.engines.cpu_products import multiplies_bfloat16
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.packed import PackedModel
from moe_router.experts.engines.self_check import keeps_requests_apart
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.registry import BaseModelSpec
from tests.unit.moe_router.experts import tiny
from tests.unit.moe_router.experts.engines.test_blocks import model_of
from tests.unit.moe_router.experts.engines.test_transformers import (
    ADAPTERS,
    FEW,
    LONG,
    MANY,
    PARTED,
    SHORT,
    job,
    probabilities,
)

WIDTH = 4
TEXTS = ("a text", "card payment declined " * 6, "é", "positive: " * 20, "one more text, of some length")


@pytest.fixture(autouse=True, scope="module")
def _also_where_float32_is_faster() -> Iterator[None]:
    """What is multiplied in bfloat16 must be right on each processor that can, whichever way it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers, "computes_bfloat16", multiplies_bfloat16)
        yield


def engine_of(folder: Path, adapters: tuple[Path, ...], *, half: bool) -> TransformersEngine:
    engine = TransformersEngine(*model_of(folder))
    if half and not engine.use_bfloat16():
        pytest.skip("this processor, with so many threads, does not multiply bfloat16 as is needed")
    for name, adapter in zip(("first", "second"), adapters, strict=False):
        engine.load_adapter(name, str(adapter))
    return engine


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose products are not too small for oneDNN."""
    return tiny.save(tmp_path_factory.mktemp("wide"), width=WIDTH)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> tuple[Path, Path]:
    """Of a rank that is too low for oneDNN, and of one that is not."""
    root = tmp_path_factory.mktemp("adapters")
    return (
        tiny.save_adapter(root / "low", wide, width=WIDTH, seed=1, r=2),
        tiny.save_adapter(root / "high", wide, width=WIDTH, seed=2, r=16),
    )


@pytest.fixture(scope="module")
def half(wide: Path, adapters: tuple[Path, Path]) -> TransformersEngine:
    return engine_of(wide, adapters, half=True)


def some(engine: TransformersEngine) -> list[LabelJob]:
    return [
        job(engine, text, template, labels, adapter)
        for text in TEXTS
        for template, labels in ((SHORT, MANY), (LONG, FEW), (SHORT, PARTED))
        for adapter in ADAPTERS
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=120),
            st.sampled_from([SHORT, LONG]),
            st.sampled_from([FEW, MANY, PARTED]),
            st.sampled_from(ADAPTERS),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_a_request_gets_the_same_to_the_last_bits_whatever_shares_its_pass(
    half: TransformersEngine, asked: list[tuple[str, Any, list[str], str | None]]
) -> None:
    jobs = [job(half, *one) for one in asked]
    for one, found in zip(jobs, probabilities(half, *jobs), strict=True):
        # The last product, with the labels' tokens alone, is summed in float64.
        assert np.abs(found - probabilities(half, one)[0]).max() <= 1e-6


def test_answers_are_near_those_of_float32(
    half: TransformersEngine, wide: Path, adapters: tuple[Path, Path]
) -> None:
    whole = engine_of(wide, adapters, half=False)
    found, wanted = probabilities(half, *some(half)), probabilities(whole, *some(whole))
    differences = [np.abs(a - b).max() for a, b in zip(found, wanted, strict=True)]
    assert 0 < max(differences) < 0.05  # the tiny model's weights are five times those of a real one
    assert half.memory_bytes() < whole.memory_bytes()


def test_an_adapter_that_is_more_than_plain_lora_stays_in_float32_and_keeps_requests_apart(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.save_adapter(tmp_path / "odd", wide, width=WIDTH, use_dora=True)
    engine, whole = (engine_of(wide, (folder,), half=half) for half in (True, False))
    jobs = [job(engine, text, adapter=name) for text in TEXTS for name in ("first", None)]
    found = probabilities(engine, *jobs)
    for one, other, answer in zip(found, probabilities(whole, *jobs), jobs, strict=True):
        assert one == pytest.approx(other, abs=0.05)
        assert np.abs(one - probabilities(engine, answer)[0]).max() <= 1e-6
    lengths: list[int] = []
    forward = PackedModel.forward

    def count(self: PackedModel, tokens: Any, *others: Any) -> Any:
        lengths.append(len(tokens))
        return forward(self, tokens, *others)

    monkeypatch.setattr(PackedModel, "forward", count)
    probabilities(engine, *jobs)
    assert len(lengths) == 1 + len(TEXTS)  # all that go without it, and each that goes with it
    layer = engine._model.get_decoder().layers[0].self_attn.q_proj
    assert layer.lora_A["first"].weight.dtype == torch.float32
    assert layer.lora_magnitude_vector["first"].weight.dtype == torch.float32


@pytest.mark.parametrize(("kept", "dtype"), [(True, torch.bfloat16), (False, torch.float64)])
def test_updates_whose_products_are_too_small_are_in_float64(
    wide: Path,
    adapters: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    kept: bool,
    dtype: torch.dtype,
) -> None:
    engine = engine_of(wide, (), half=True)
    monkeypatch.setattr(bfloat16_products, "_keeps_product", lambda *_: kept)
    engine.load_adapter("first", str(adapters[0]))
    layer = engine._model.get_decoder().layers[0].self_attn.q_proj
    assert layer.lora_A["first"].weight.dtype == layer.lora_B["first"].weight.dtype == dtype


def test_what_is_decoded_is_the_same_whatever_shares_its_pass(half: TransformersEngine) -> None:
    def decode(index: int, into: list[Any]) -> DecodeJob:
        def decoder() -> Decoder:
            found = yield Decision((), (7, 8, 9))
            for step in range(3):
                into.append(np.array(found))
                found = yield Decision(tuple(range(5, 6 + (index + step) % 3)), (5, 6, 7))
            into.append(np.array(found))

        prompt = half.tokens.prompt(SHORT, {"input": TEXTS[index]}, ADAPTERS[index % 3])
        return DecodeJob(prompt, decoder)

    together: list[list[Any]] = [[] for _ in TEXTS]
    half.infer([decode(index, together[index]) for index in range(len(TEXTS))])
    for index, found in enumerate(together):
        alone: list[Any] = []
        half.infer([decode(index, alone)])
        assert np.abs(np.array(alone) - np.array(found)).max() <= 1e-6


def test_only_the_decoders_float32_layers_are_replaced(llama_folder: Path) -> None:
    model, _ = model_of(llama_folder)
    decoder = model.get_decoder()
    decoder.layers[0].mlp.up_proj.half()
    bias = torch.nn.Linear(32, 32)
    decoder.layers[1].self_attn.o_proj = bias
    use_bfloat16(decoder)
    assert type(model.lm_head) is torch.nn.Linear
    assert type(decoder.layers[0].mlp.up_proj) is torch.nn.Linear
    replaced = decoder.layers[1].self_attn.o_proj
    assert isinstance(replaced, Bfloat16Linear)
    given = torch.randn(3, 32)
    assert replaced(given).dtype == torch.float32
    assert torch.allclose(replaced(given), bias(given), atol=0.05)


def flipped(rows: int) -> Callable[..., torch.Tensor]:
    """Products that sum in another order where there are so many rows."""
    linear = torch.nn.functional.linear

    def multiply(given: torch.Tensor, weights: torch.Tensor, bias: Any = None) -> torch.Tensor:
        if given.shape[-2] == rows:
            given, weights = given.flip(-1), weights.flip(-1)
        return linear(given, weights, bias)

    return multiply


@pytest.mark.parametrize("biased", [False, True])
def test_a_sum_in_another_order_is_seen(monkeypatch: pytest.MonkeyPatch, biased: bool) -> None:
    if not (multiplies_bfloat16() and bfloat16_products._keeps_product(128, 256, biased)):
        pytest.skip("this processor does not multiply bfloat16 as is needed")
    monkeypatch.setattr(bfloat16_products, "linear", flipped(48))
    assert not bfloat16_products._keeps_product(128, 256, biased)


@pytest.fixture
def right(wide: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A decoder all of whose products are right, and so is the rest of it, with one thread."""
    monkeypatch.setattr(bfloat16_products, "_keeps_product", lambda *_: True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoder = model_of(wide)[0].get_decoder()
        assert keeps_rows_apart(decoder, decoder.config)
        yield decoder
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["gelu_pytorch_tanh", "cos"])
def test_a_function_that_hangs_on_a_threads_share_is_seen(
    right: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    function = torch.cos if name == "cos" else bfloat16_products.ACT2FN[name]

    def by_shares(given: torch.Tensor) -> torch.Tensor:
        found = function(given)
        if given.shape[0] == 96:
            found[50, 7] = torch.nextafter(found[50, 7], torch.tensor(9.0))
        return found

    if name == "cos":
        monkeypatch.setattr(torch, "cos", by_shares)
    else:
        monkeypatch.setitem(bfloat16_products.ACT2FN, name, lambda: by_shares)
    assert not keeps_rows_apart(right, right.config)


def test_products_beside_the_linear_layers_are_seen(right: Any) -> None:
    right.layers[0].mlp.experts = torch.nn.ParameterList([torch.zeros(2, 8, 8)])
    assert not keeps_rows_apart(right, right.config)


def test_angles_that_hang_on_the_longest_of_a_pass_are_seen(right: Any) -> None:
    right.config.rope_parameters = {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}
    assert not keeps_rows_apart(right, right.config)


def test_a_model_whose_activation_is_not_known_keeps_float32(right: Any) -> None:
    right.config.hidden_activation = "of its own"
    assert not keeps_rows_apart(right, right.config)


def test_a_processor_without_bfloat16_keeps_float32(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers, "computes_bfloat16", lambda: False)
    engine = TransformersEngine(*model_of(llama_folder))
    assert not engine.use_bfloat16()
    assert not any(isinstance(module, Bfloat16Linear) for module in engine._model.modules())


@contextmanager
def telling_the_length(engine: TransformersEngine) -> Iterator[None]:
    """A model whose numbers hang, by next to nothing, on what else is in the pass."""
    hook = (
        engine._model.get_decoder()
        .layers[0]
        .register_forward_hook(lambda _layer, _given, found: found * (1 + 1e-6 * found.shape[1]))
    )
    yield
    hook.remove()


def test_what_hangs_on_the_pass_is_seen(half: TransformersEngine) -> None:
    assert keeps_requests_apart(half._packed, half.tokens)
    with telling_the_length(half):
        assert not keeps_requests_apart(half._packed, half.tokens)


def broken(*_: object) -> bool:
    raise RuntimeError("a layer of its own kind")


@pytest.mark.parametrize(
    ("found", "told"), [(lambda *_: False, "mixes requests"), (broken, "of its own kind")]
)
def test_what_shows_too_late_is_loaded_anew_and_once(
    wide: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    found: Any,
    told: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(transformers, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(transformers, "keeps_rows_apart", lambda *_: True)
    monkeypatch.setattr(transformers, "keeps_requests_apart", found)
    monkeypatch.setattr(factory, "_float32_alone", set())
    loaded: list[weakref.ref[Any]] = []

    def load_one(*given: Any, **more: Any) -> tuple[Any, Any]:
        assert all(model() is None for model in loaded)  # there may be no room for two
        model, tokenizer = load_model(*given, **more)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(loading, "load_model", load_one)
    for number in (1, 1):
        engine: Any = None
        gc.collect()
        engine = make_engine(BaseModelSpec(hf_name=str(wide)), EngineOptions(tmp_path))
        assert not any(isinstance(module, Bfloat16Linear) for module in engine._model.modules())
        assert caplog.text.count(told) == number
    assert len(loaded) == 3


def test_a_model_that_cannot_be_looked_at_keeps_float32(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(transformers, "keeps_rows_apart", broken)
    engine = TransformersEngine(*model_of(wide))
    assert not engine.use_bfloat16()
    assert engine.load_bytes() == engine.memory_bytes()


def test_no_room_for_an_adapter_leaves_nothing_of_it(
    wide: Path, adapters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    engine = engine_of(wide, (), half=True)
    asked = job(engine, "a text")
    wanted, before = probabilities(engine, asked)[0], engine.memory_bytes()
    monkeypatch.setattr(bfloat16_products, "_keeps_product", full)
    with pytest.raises(OutOfMemoryError, match="'first'"):
        engine.load_adapter("first", str(adapters[0]))
    assert probabilities(engine, asked)[0] == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ModelAssetError, match="not loaded"):
        engine.infer([job(engine, "a text", adapter="first")])
    assert before == engine.memory_bytes() < engine.load_bytes()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_is_plain_whatever_others_are(
    wide: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    odd = tiny.save_adapter(tmp_path / "odd", wide, width=WIDTH, target_modules=["q_proj", "embed_tokens"])
    engine = engine_of(wide, (odd, adapters[1]), half=True)
    assert engine._odd == {"first"}
    engine.unload_adapter("first")
    engine.load_adapter("first", str(adapters[0]))
    assert not engine._odd


@pytest.mark.parametrize(("dtype", "asked"), [("auto", 1), ("float32", 0), ("bfloat16", 0)])
def test_a_registry_that_names_a_dtype_gets_it(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: Any, asked: int
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(TransformersEngine, "use_bfloat16", lambda self: bool(calls.append(self)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    factory.make_engine(BaseModelSpec(hf_name=str(gemma_folder), torch_dtype=dtype), EngineOptions(tmp_path))
    assert len(calls) == asked

from __future__ import annotations

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
from moe_router.experts.engines import bfloat16_products, factory, transformers
from moe_router.experts.engines.base import LabelJob
from moe_router.experts.engines.bfloat16_products import Bfloat16Linear, keeps_rows_apart, use_bfloat16
from moe_router.experts.engines.cpu_products import computes_bfloat16
from moe_router.experts.engines.factory import EngineOptions, make_engine
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


def test_an_adapter_that_is_more_than_plain_lora_is_served_in_bfloat16(wide: Path, tmp_path: Path) -> None:
    folder = tiny.save_adapter(tmp_path / "odd", wide, width=WIDTH, use_dora=True)
    found, wanted = (
        probabilities(engine, *[job(engine, text, adapter="first") for text in TEXTS])
        for engine in (engine_of(wide, (folder,), half=half) for half in (True, False))
    )
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=0.05)


def test_updates_whose_products_are_too_small_are_in_float64(half: TransformersEngine) -> None:
    layer = half._model.get_decoder().layers[0].self_attn.q_proj
    assert layer.lora_A["first"].weight.dtype == torch.float64
    assert layer.lora_A["second"].weight.dtype == torch.bfloat16


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


def test_a_sum_in_another_order_is_seen(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = model_of(wide)
    if not (computes_bfloat16() and keeps_rows_apart(model.get_decoder(), model.config)):
        pytest.skip("this processor does not multiply bfloat16 as is needed")
    monkeypatch.setattr(bfloat16_products, "linear", flipped(48))
    assert not keeps_rows_apart(model.get_decoder(), model.config)


def test_an_activation_that_hangs_on_a_threads_share_is_seen(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = model_of(llama_folder)

    def by_shares(given: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.silu(given)
        if given.shape[0] == 96:
            found[50, 7] = torch.nextafter(found[50, 7], torch.tensor(9.0))
        return found

    monkeypatch.setitem(bfloat16_products.ACT2FN, "silu", lambda: by_shares)
    assert not keeps_rows_apart(model.get_decoder(), model.config)


def test_a_model_whose_activation_is_not_known_keeps_float32(llama_folder: Path) -> None:
    model, _ = model_of(llama_folder)
    model.config.hidden_act = "of its own"
    assert not keeps_rows_apart(model.get_decoder(), model.config)


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


def test_what_hangs_on_the_pass_is_seen(llama_folder: Path) -> None:
    engine = TransformersEngine(*model_of(llama_folder))
    with telling_the_length(engine):
        assert not keeps_requests_apart(engine._packed, engine.tokens)


def test_what_shows_too_late_is_loaded_anew(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transformers, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(transformers, "keeps_rows_apart", lambda *_: True)
    monkeypatch.setattr(transformers, "keeps_requests_apart", lambda *_: False)
    with pytest.raises(ModelAssetError, match="does not keep requests apart"):
        TransformersEngine(*model_of(gemma_folder)).use_bfloat16()
    engine: Any = make_engine(BaseModelSpec(hf_name=str(gemma_folder)), EngineOptions(tmp_path))
    assert not any(isinstance(module, Bfloat16Linear) for module in engine._model.modules())
    assert "does not keep requests apart" in caplog.text


@pytest.mark.parametrize(("dtype", "asked"), [("auto", 1), ("float32", 0), ("bfloat16", 0)])
def test_a_registry_that_names_a_dtype_gets_it(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: Any, asked: int
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(TransformersEngine, "use_bfloat16", lambda self: bool(calls.append(self)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    factory.make_engine(BaseModelSpec(hf_name=str(gemma_folder), torch_dtype=dtype), EngineOptions(tmp_path))
    assert len(calls) == asked

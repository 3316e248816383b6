from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from moe_router.errors import ModelAssetError
from moe_router.experts.engines import blocks as attention
from moe_router.experts.engines import packed, transformers
from moe_router.experts.engines.base import LabelJob
from moe_router.experts.engines.blocks import (
    NAME,
    Block,
    _attend,
    masks_of,
    packed_pass,
    use_blocks,
)
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.packed import PackedModel
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import LabelTrie
from moe_router.registry import BaseModelSpec

LABELS = [
    f"card {a} {b} {c}" for a in ("lost", "late") for b in ("fee", "arrival", "pin") for c in ("x", "y")
]
TEMPLATES = (
    Template("Text: {{input}}\nLabel:"),
    Template("Some words of a text that come before. Text: card payment Label: neutral\n{{input}} =>"),
)


def model_of(folder: Path) -> tuple[Any, HfTokens]:
    model, tokenizer = load_model(folder, BaseModelSpec(hf_name=str(folder), torch_dtype="float32"))
    return model, HfTokens(tokenizer, max_text_tokens=200)


def jobs_of(engine: TransformersEngine, *, exact: bool = True) -> list[LabelJob]:
    """Of all lengths, with two heads; each with a second pass over its labels where it need not be exact."""
    found = []
    for size in (1, 5, 17, 40, 90, 120, 3, 200):
        template = TEMPLATES[size % 2]
        prompt = engine.tokens.prompt(template, {"input": "card payment declined "[: size % 23] * 9}, None)
        sequences = [engine.tokens.encode(template.label_prefix + label, trusted=False) for label in LABELS]
        found.append(LabelJob(prompt, LabelTrie(sequences, engine.tokens.line_end), exact=exact))
    return found


def probabilities(engine: TransformersEngine, *, exact: bool = True) -> list[Any]:
    return [np.exp(outcome) for outcome in engine.infer(jobs_of(engine, exact=exact))]


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("whole", ["sdpa", "eager"])
@pytest.mark.parametrize("folder", ["gemma_folder", "llama_folder"])
def test_blocks_say_what_one_mask_for_all_says(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, folder: str, whole: str, exact: bool
) -> None:
    model, tokens = model_of(request.getfixturevalue(folder))
    engine = TransformersEngine(model, tokens)
    assert engine._packed.in_blocks
    in_blocks = probabilities(engine, exact=exact)
    model.set_attn_implementation(whole)
    monkeypatch.setattr(transformers, "use_blocks", lambda _model: False)
    other = TransformersEngine(model, tokens)
    assert not other._packed.in_blocks
    for found, wanted in zip(in_blocks, probabilities(other, exact=exact), strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_makes_masks_of_its_own_is_served_under_one(llama_folder: Path, dtype: Any) -> None:
    spec = BaseModelSpec(hf_name=str(llama_folder), torch_dtype=dtype)
    model, tokenizer = load_model(llama_folder, spec)
    tokens = HfTokens(tokenizer, max_text_tokens=200)
    assert TransformersEngine(model, tokens)._packed.in_blocks

    def copying(_layer: Any, args: Any, given: dict[str, Any]) -> Any:
        mask = given["attention_mask"]
        return args, {**given, "attention_mask": mask.clone() if mask is not None else None}

    for layer in model.get_decoder().layers:
        layer.register_forward_pre_hook(copying, with_kwargs=True)
    model.set_attn_implementation("sdpa")
    engine = TransformersEngine(model, tokens)
    assert not engine._packed.in_blocks
    assert engine._model.config._attn_implementation == "sdpa"
    alone = engine.infer(jobs_of(engine)[:1])[0]
    assert np.exp(alone) == pytest.approx(probabilities(engine)[0], abs=1e-5 if dtype == "float32" else 0.05)


class FaultyMasks:
    """Those of the first block are right; the others see slots that are not theirs."""

    def __call__(self, blocks: Sequence[Block], window: int | None) -> torch.Tensor:
        carrier = attention.masks_of(blocks, window)
        parts = carrier.blocks  # type: ignore[attr-defined]
        parts[1:] = [(rows, torch.arange(len(slots)), mask) for rows, slots, mask in parts[1:]]
        return carrier


def test_a_fault_that_only_neighbours_show_is_found_at_the_load(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "masks_of", FaultyMasks())
    assert not TransformersEngine(*model_of(llama_folder))._packed.in_blocks


@pytest.mark.parametrize("fault", [ValueError, IndexError, TypeError, RuntimeError])
def test_a_model_that_cannot_do_with_what_it_is_given_is_served_under_one_mask(
    llama_folder: Path, fault: type[Exception]
) -> None:
    model, tokens = model_of(llama_folder)

    def looking(_layer: Any, _args: Any, given: dict[str, Any]) -> None:
        mask = given["attention_mask"]
        if mask is not None and mask.shape[-1] == 1:
            raise fault("Attention mask should be of another size")

    model.get_decoder().layers[0].register_forward_pre_hook(looking, with_kwargs=True)
    engine = TransformersEngine(model, tokens)
    assert not engine._packed.in_blocks
    assert engine._packed._last_layer is not None
    assert model.config._attn_implementation == "sdpa"


def test_in_a_packed_pass_a_mask_without_blocks_is_none() -> None:
    heads = torch.randn(1, 2, 5, 4)
    plain = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    module = torch.nn.Module()
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            _attend(module, heads, heads, heads, plain)
        except Exception as error:  # noqa: BLE001  told to the test
            failures.append(error)

    with packed_pass():
        for mask in (plain, None):
            with pytest.raises(ModelAssetError, match="mask"):
                _attend(module, heads, heads, heads, mask)
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join(5)
    assert failures == []
    found, _ = _attend(module, heads, heads, heads, plain)
    assert torch.isfinite(found).all()


def test_what_carries_the_blocks_is_no_mask() -> None:
    block = Block(slice(0, 1), np.arange(1), np.ones((1, 1), bool), np.zeros((1, 1), np.int64))
    copied = masks_of([block], None).clone()
    heads = torch.randn(1, 2, 5, 4)
    found, _ = _attend(torch.nn.Module(), heads, heads, heads, copied)
    assert found.isnan().all()


def test_a_model_of_several_parts_attends_as_its_part_for_text_says(
    gemma_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, tokens = model_of(gemma_folder)
    seeing = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=text.config.to_dict(),
        vision_config={**seeing, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    torch.manual_seed(5)
    whole = Gemma3ForConditionalGeneration(config).eval()
    whole.get_decoder().load_state_dict(text.get_decoder().state_dict())
    whole.lm_head.load_state_dict(text.lm_head.state_dict())
    wanted = probabilities(TransformersEngine(text, tokens))
    for use in (use_blocks, lambda _model: False):
        monkeypatch.setattr(transformers, "use_blocks", use)
        engine = TransformersEngine(whole, tokens)
        assert set(engine._packed._kinds) == {"full_attention", "sliding_attention"}
        for found, known in zip(probabilities(engine), wanted, strict=True):
            assert found == pytest.approx(known, abs=1e-5)
        whole.set_attn_implementation("sdpa")


def test_a_model_that_is_partly_elsewhere_attends_under_one_mask(llama_folder: Path) -> None:
    model, _ = model_of(llama_folder)
    model.get_decoder().layers[1].to("meta")
    assert not use_blocks(model)
    assert model.config._attn_implementation == "sdpa"


def test_attention_is_multiplied_by_mkl_and_all_else_as_was_chosen(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {"attention": set(), "layers": set()}
    attend = attention.scaled_dot_product_attention

    def attending(*given: Any, **more: Any) -> Any:
        seen["attention"].add(torch.get_float32_matmul_precision())
        return attend(*given, **more)

    model, tokens = model_of(gemma_folder)
    for layer in model.get_decoder().layers:
        layer.mlp.register_forward_pre_hook(
            lambda *_: seen["layers"].add(torch.get_float32_matmul_precision())
        )
    engine = TransformersEngine(model, tokens)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", attending)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        seen["layers"].clear()
        probabilities(engine)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {"attention": {"highest"}, "layers": {"high"}}


def test_no_block_holds_what_its_requests_do_not_see(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(*model_of(gemma_folder))
    passes: list[Sequence[Block]] = []
    forward = PackedModel.forward

    def spy(self: PackedModel, tokens: Any, positions: Any, blocks: Any, *others: Any) -> Any:
        passes.append(blocks)
        return forward(self, tokens, positions, blocks, *others)

    monkeypatch.setattr(PackedModel, "forward", spy)
    jobs = jobs_of(engine, exact=False)
    engine.infer(jobs)
    assert len(passes) == 4  # two heads, the prompts, the labels
    for blocks in passes:
        ends = [0, *(block.rows.stop for block in blocks)]
        assert [block.rows.start for block in blocks] == ends[:-1]
        for block in blocks:
            assert block.allowed.any(axis=0).all()  # a slot that nobody sees would be computed for nothing
            assert block.allowed.any(axis=1).all()
    # Each request's own tokens are a block, and the branches of its labels another one.
    sizes = [block.rows.stop - block.rows.start for block in passes[2]]
    assert sizes[: len(jobs)] == [len(job.prompt.tail) for job in jobs]
    assert len(passes[3]) in (len(jobs), len(jobs) + 1)


def test_what_is_not_packed_goes_as_without_blocks(gemma_folder: Path) -> None:
    model, _ = model_of(gemma_folder)
    ids = torch.arange(3, 53).reshape(2, 25)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    with torch.inference_mode():
        wanted = model(ids, attention_mask=mask).logits
        model.set_attn_implementation(NAME)
        found = model(ids, attention_mask=mask).logits
    assert torch.allclose(found[mask.bool()], wanted[mask.bool()], atol=1e-6)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_router.errors import ModelAssetError, RequestError
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.training.experts.examples import examples_of, request_of
from moe_router.training.experts.lora import ADAPTER, LoraModel, LoraShape
from tests.unit.moe_router.training import expert_fixtures as fixtures


def _model(base: Path) -> LoraModel:
    made = LoraModel(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraShape(rank=2, alpha=4)
    )
    torch.manual_seed(5)
    for weights in made.parameters().values():
        torch.nn.init.normal_(weights, std=0.3)
    return made


def _engine(model: LoraModel, tokens: HfTokens) -> TransformersEngine:
    return TransformersEngine(model.model.eval(), tokens, loaded=(ADAPTER,))


def test_the_loss_is_what_serving_says_of_the_right_labels(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/intent")
    rows = fixtures.rows(6)
    model = _model(gemma_folder)
    model.train()
    loss = float(model.loss(examples_of(expert, rows)).detach())
    jobs = [job for row in rows for job in expert.prepare(request_of(row, "bank/intent")).jobs]
    tokens = expert._tokens
    assert isinstance(tokens, HfTokens)
    served = _engine(model, tokens).infer(jobs)
    right = [
        float(scores[expert.labels.index(row.label)])
        for scores, row in zip(served, rows, strict=True)
        if scores is not None
    ]
    assert loss == pytest.approx(-np.mean(right), abs=1e-3)


def test_an_engine_that_judged_it_leaves_it_trainable(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/intent")
    model = _model(gemma_folder)
    tokens = expert._tokens
    assert isinstance(tokens, HfTokens)
    _engine(model, tokens)
    model.train()
    model.loss(examples_of(expert, fixtures.rows(3))).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters().values())
    assert all(not p.requires_grad for n, p in model.model.named_parameters() if "lora_" not in n)


def test_what_is_saved_can_be_served_and_restored(gemma_folder: Path, tmp_path: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/intent")
    model = _model(gemma_folder)
    for weights in model.parameters().values():  # as they are stored
        weights.data = weights.data.bfloat16().float()
    model.save(tmp_path, "tiny")
    tokens = expert._tokens
    assert isinstance(tokens, HfTokens)
    jobs = [job for row in fixtures.rows(4) for job in expert.prepare(request_of(row, "bank/intent")).jobs]
    own = _engine(model, tokens).infer(jobs)
    loaded = TransformersEngine(AutoModelForCausalLM.from_pretrained(gemma_folder).eval(), tokens)
    loaded.load_adapter(ADAPTER, str(tmp_path))
    for mine, theirs in zip(own, loaded.infer(jobs), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)  # type: ignore[arg-type]
    before = {name: p.detach().clone() for name, p in model.parameters().items()}
    for weights in model.parameters().values():
        weights.data.zero_()
    model.restore(tmp_path)
    assert all(torch.equal(before[name], p) for name, p in model.parameters().items())


def test_layers_below_the_first_get_no_adapter(gemma_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(gemma_folder)
    names = LoraModel(model, LoraShape(rank=2, first_layer=2)).parameters()
    assert names
    assert all(".layers.2." in name for name in names)


@pytest.mark.parametrize("first", [-1, 6, 60])
def test_a_first_layer_that_there_is_not_is_told(gemma_folder: Path, first: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(gemma_folder, dtype=torch.float32)
    layers = model.config.num_hidden_layers
    with pytest.raises(RequestError, match=f"the model has {layers}"):
        LoraModel(model, LoraShape(first_layer=first))


def test_a_model_without_the_targets_is_refused(gemma_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(gemma_folder)
    with pytest.raises(ModelAssetError, match="none of wrong"):
        LoraModel(model, LoraShape(targets=("wrong",)))

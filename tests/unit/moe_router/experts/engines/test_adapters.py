from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moe_router.errors import ModelAssetError
from moe_router.experts.engines import adapters
from moe_router.experts.engines.base import OutOfMemoryError
from tests.unit.moe_router.experts import tiny

Tensors = dict[str, torch.Tensor]
HEAD = "base_model.model.lm_head.weight"


def base_model() -> Any:
    return tiny.model("gemma", len(tiny.tokenizer()))


def parameters(model: Any) -> Tensors:
    return {name: value.clone() for name, value in model.named_parameters()}


def keys(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / adapters.WEIGHTS
    save_file(change(load_file(file)), file)


def setting(folder: Path, **values: Any) -> None:
    file = folder / adapters.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def saves_a_head(folder: Path) -> None:
    keys(folder, lambda tensors: tensors | {HEAD: torch.ones(400, 32)})


def saves_an_embedding(folder: Path) -> None:
    keys(
        folder, lambda tensors: tensors | {"base_model.model.model.embed_tokens.weight": torch.ones(400, 32)}
    )


def trains_modules(folder: Path) -> None:
    setting(folder, modules_to_save=["lm_head"])


def trains_biases(folder: Path) -> None:
    setting(folder, bias="lora_only")


def began_at_a_decomposition(folder: Path) -> None:
    setting(folder, init_lora_weights="pissa_niter_4")


def began_at_another(folder: Path) -> None:
    setting(folder, init_lora_weights="OLoRA")


def copies_layers(folder: Path) -> None:
    setting(folder, layer_replication=[[0, 2], [1, 3]])


def acts_from_a_token_on(folder: Path) -> None:
    setting(folder, alora_invocation_tokens=[5, 6])


def is_empty(folder: Path) -> None:
    keys(folder, lambda tensors: {})


def is_half(folder: Path) -> None:
    keys(folder, lambda tensors: {key: value for key, value in tensors.items() if "lora_A" in key})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (saves_a_head, HEAD),
        (saves_an_embedding, "embed_tokens.weight.*save_embedding_layers=False"),
        (trains_modules, r"modules_to_save \['lm_head'\].*train it without"),
        (trains_biases, "bias 'lora_only'.*bias='none'"),
        (began_at_a_decomposition, "'pissa_niter_4'.*save it converted"),
        (began_at_another, "'olora'.*save it converted"),
        (copies_layers, "layer_replication.*train it without"),
        (acts_from_a_token_on, "alora_invocation_tokens"),
        (is_empty, r"lacks 12 of .*lora_\w.*save it again"),
        (is_half, r"lacks 6 of .*lora_B.*save it again"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_adapter_that_is_more_or_less_than_its_lora_is_refused_and_leaves_the_base_as_it_was(
    gemma_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    folder = tiny.save_adapter(tmp_path / "adapter", gemma_folder)
    spoil(folder)
    model = base_model()
    before = parameters(model)
    with pytest.raises(ModelAssetError, match=told) as caught:
        adapters.load(model, "odd", str(folder))
    assert str(folder) in caught.value.detail
    after = {name.replace(".base_layer", ""): value for name, value in parameters(model).items()}
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("more", [{}, {"use_dora": True}, {"layers_to_transform": [1]}])
def test_an_adapter_that_is_whole_is_taken(gemma_folder: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    folder = tiny.save_adapter(tmp_path / "adapter", gemma_folder, **more)
    model = base_model()
    adapters.load(model, "own", str(folder))
    held = model.state_dict()
    for key, saved in load_file(folder / adapters.WEIGHTS).items():
        name = key.removeprefix("base_model.model.").removesuffix(".weight")
        own = [value for other, value in held.items() if other.startswith(f"{name}.own")]
        assert len(own) == 1
        assert torch.equal(own[0], saved)


def test_want_of_memory_is_no_fault_of_an_adapter(
    gemma_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = base_model(), tiny.save_adapter(tmp_path / "a", gemma_folder)
    before = parameters(model)

    def full(*_given: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(adapters, "_inject", full)
    with pytest.raises(OutOfMemoryError, match="'a'"):
        adapters.load(model, "a", str(folder))
    assert parameters(model).keys() == before.keys()

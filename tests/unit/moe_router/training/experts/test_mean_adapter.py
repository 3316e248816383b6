from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moe_router.errors import RequestError
from moe_router.training.experts.lora import LoraShape
from moe_router.training.experts.mean_adapter import mean_of

LAYERS = ("layers.0.q_proj", "layers.1.down_proj")


def adapter(folder: Path, seed: int, rank: int = 2, alpha: int = 4, layers: Sequence[str] = LAYERS) -> Path:
    """An adapter of some layers of 6 inputs and 5 outputs."""
    drawn = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in layers:
        weights[f"{layer}.lora_A.weight"] = torch.randn(rank, 6, generator=drawn)
        weights[f"{layer}.lora_B.weight"] = torch.randn(5, rank, generator=drawn)
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": alpha}), encoding="utf-8"
    )
    return folder


def added(weights: dict[str, Tensor], layer: str, scale: float) -> Tensor:
    return weights[f"{layer}.lora_B.weight"] @ weights[f"{layer}.lora_A.weight"] * scale


def alone(folder: Path, rank: int, alpha: int) -> dict[str, Tensor]:
    """As it is read and cut to its own rank."""
    return mean_of([folder], LoraShape(rank=rank, alpha=alpha))


def test_with_room_for_all_ranks_it_adds_the_mean_of_what_each_adds(tmp_path: Path) -> None:
    folders = [adapter(tmp_path / "a", 0), adapter(tmp_path / "b", 1, rank=1, alpha=8)]
    mean = mean_of(folders, LoraShape(rank=3, alpha=6))
    for layer in LAYERS:
        each = added(alone(folders[0], 2, 4), layer, 2), added(alone(folders[1], 1, 8), layer, 8)
        assert mean[f"{layer}.lora_A.weight"].shape == (3, 6)
        torch.testing.assert_close(added(mean, layer, 2), sum(each) / 2)


def test_with_less_room_it_is_the_nearest(tmp_path: Path) -> None:
    folders = [adapter(tmp_path / "a", 0), adapter(tmp_path / "b", 1)]
    whole, cut = (mean_of(folders, LoraShape(rank=rank, alpha=2 * rank)) for rank in (4, 2))
    for layer in LAYERS:
        _, sizes, _ = torch.linalg.svd(added(whole, layer, 2))
        missed = torch.linalg.matrix_norm(added(whole, layer, 2) - added(cut, layer, 2))
        torch.testing.assert_close(missed, sizes[2:].square().sum().sqrt())


def test_room_for_more_is_left_empty(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", 0)
    wide = mean_of([folder] * 4, LoraShape(rank=16, alpha=32))
    for layer in LAYERS:
        assert wide[f"{layer}.lora_B.weight"].shape == (5, 16)
        torch.testing.assert_close(added(wide, layer, 2), added(alone(folder, 2, 4), layer, 2))


def test_adapters_of_other_layers_have_no_mean(tmp_path: Path) -> None:
    folders = [adapter(tmp_path / "a", 0), adapter(tmp_path / "b", 1, layers=LAYERS[:1])]
    with pytest.raises(RequestError, match="adapts other layers"):
        mean_of(folders, LoraShape())


def test_adapters_of_different_models_have_no_mean(tmp_path: Path) -> None:
    folders = [adapter(tmp_path / "a", 0), adapter(tmp_path / "b", 1)]
    for folder, model in zip(folders, ("tiny", "small"), strict=True):
        _rewrite_config(folder, base_model_name_or_path=model)
    with pytest.raises(RequestError, match=r"b was trained on small, .*a on tiny"):
        mean_of(folders, LoraShape())


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_layers_with_a_rank_of_their_own_are_refused(tmp_path: Path, pattern: str) -> None:
    folder = adapter(tmp_path / "a", 0)
    _rewrite_config(folder, **{pattern: {"q_proj": 1}})
    with pytest.raises(RequestError, match="some layers have a rank or an alpha of their own"):
        mean_of([folder], LoraShape())


def _rewrite_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "broken", ["missing", "no weights", "half of them", "no JSON", "no rank", "a rank of 0", "a list"]
)
def test_what_is_no_adapter_is_told(tmp_path: Path, broken: str) -> None:
    folder = adapter(tmp_path / "a", 0)
    config = folder / "adapter_config.json"
    match broken:
        case "missing":
            folder = tmp_path / "b"
        case "no weights":
            (folder / "adapter_model.safetensors").write_bytes(b"\x07")
        case "half of them":
            save_file({"a.lora_A.weight": torch.ones(2, 6)}, folder / "adapter_model.safetensors")
        case "no JSON":
            config.write_text("{", encoding="utf-8")
        case "no rank":
            config.write_text("{}", encoding="utf-8")
        case "a rank of 0":
            config.write_text('{"peft_type": "LORA", "r": 0, "lora_alpha": 1}', encoding="utf-8")
        case _:
            config.write_text("[]", encoding="utf-8")
    with pytest.raises(RequestError, match="no plain LoRA adapter that can be read"):
        mean_of([folder], LoraShape())

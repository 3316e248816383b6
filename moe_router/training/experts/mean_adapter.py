"""The mean of what several adapters add to the base model, as one adapter.

Runs that began at the same point and saw other texts, or the same in another order, make different mistakes;
the mean of their weights makes fewer than each, at the cost of one (Wortsman et al. 2022, "Model soups",
https://arxiv.org/abs/2203.05482). What is averaged is the product B·A of each, as the mean of the factors is
not the factor of the mean; it has the sum of the ranks, and is cut to the nearest of the rank that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moe_router.errors import ModelAssetError, RequestError
from moe_router.experts.engines import adapters
from moe_router.training.experts.lora import LoraShape

_A, _B = ".lora_A.", ".lora_B."


class _Adapter(NamedTuple):
    base_model: str | None
    weights: dict[str, Tensor]
    """in float32"""
    scale: float
    """by how much the product of two factors counts"""


def mean_of(folders: Sequence[Path], shape: LoraShape) -> dict[str, Tensor]:
    """The adapter of this shape that is nearest to the mean: its weights by the names that `save` gives them.

    Raises:
        RequestError: an adapter cannot be read, adapts another model or other layers than the first, or has
            ranks of their own for some layers.
    """
    read = [_read(folder) for folder in folders]
    for folder, adapter in zip(folders, read, strict=True):
        if adapter.base_model != read[0].base_model:
            raise RequestError(
                f"{folder} was trained on {adapter.base_model}, {folders[0]} on {read[0].base_model}; "
                "there is no mean of them."
            )
        if _layers(adapter.weights) != _layers(read[0].weights):
            raise RequestError(f"{folder} adapts other layers than {folders[0]}; there is no mean of them.")
    mean: dict[str, Tensor] = {}
    for name in read[0].weights:
        if _A not in name:
            continue
        other = name.replace(_A, _B)
        first = torch.cat([adapter.weights[name] for adapter in read])
        scaled = [adapter.weights[other] * adapter.scale for adapter in read]
        second = torch.cat(scaled, dim=1) / len(read)
        mean[name], mean[other] = _cut(first, second * shape.rank / shape.alpha, shape.rank)
    return mean


def _layers(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Each factor's inputs or outputs."""
    return {name: value.shape[1 if _A in name else 0] for name, value in weights.items()}


def _cut(first: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, n) and B (m, rank) with the product nearest to second · first (Eckart and Young 1936)."""
    left, left_rest = torch.linalg.qr(second)
    right, right_rest = torch.linalg.qr(first.T)
    u, sizes, v = torch.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    roots = sizes[:rank].sqrt()
    a = roots[:, None] * (v[:rank] @ right.T)
    b = (left @ u[:, :rank]) * roots
    missing = rank - len(roots)  # of the ranks together
    return torch.nn.functional.pad(a, (0, 0, 0, missing)), torch.nn.functional.pad(b, (0, missing))


def _read(folder: Path) -> _Adapter:
    try:
        config, weights = adapters.read(folder.name, folder)
        scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
        if config.rank_pattern or config.alpha_pattern:
            raise ValueError("some layers have a rank or an alpha of their own")
        firsts = [name for name in weights if _A in name]
        if {*firsts, *(name.replace(_A, _B) for name in firsts)} != weights.keys():
            raise ValueError("there are other weights than the two factors of each layer")
    except (ModelAssetError, ValueError, ArithmeticError) as error:
        raise RequestError(f"{folder} holds no plain LoRA adapter that can be read: {error}") from error
    floats = {name: value.float() for name, value in weights.items()}
    return _Adapter(config.base_model_name_or_path, floats, scale)

"""The mean of what several adapters add to the base model, as one adapter.

Runs that began at the same point and saw other texts, or the same in another order, make different mistakes;
the mean of their weights makes fewer than each, at the cost of one (Wortsman et al. 2022, "Model soups",
https://arxiv.org/abs/2203.05482). What is averaged is the product B·A of each, as the mean of the factors is
not the factor of the mean; it has the sum of the ranks, and is cut to the nearest of the rank that is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from moe_router.errors import ModelAssetError, RequestError
from moe_router.experts.engines import adapters
from moe_router.training.experts.lora import LoraShape

_A, _B = ".lora_A.", ".lora_B."


def mean_of(folders: Sequence[Path], shape: LoraShape) -> dict[str, Tensor]:
    """The adapter of this shape that is nearest to the mean: its weights by the names that `save` gives them.

    Raises:
        RequestError: an adapter cannot be read, or adapts other layers than the first.
    """
    read = [_read(folder) for folder in folders]
    for folder, (weights, _) in zip(folders, read, strict=True):
        if _layers(weights) != _layers(read[0][0]):
            raise RequestError(f"{folder} adapts other layers than {folders[0]}; there is no mean of them.")
    mean: dict[str, Tensor] = {}
    for name in read[0][0]:
        if _A not in name:
            continue
        other = name.replace(_A, _B)
        first = torch.cat([weights[name] for weights, _ in read])
        second = torch.cat([weights[other] * scale for weights, scale in read], dim=1) / len(read)
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


def _read(folder: Path) -> tuple[dict[str, Tensor], float]:
    """The weights in float32, and by how much their product counts."""
    try:
        config, weights = adapters.read(folder.name, folder)
        scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
        firsts = [name for name in weights if _A in name]
        if {*firsts, *(name.replace(_A, _B) for name in firsts)} != weights.keys():
            raise ValueError("there are other weights than the two factors of each layer")
    except (ModelAssetError, ValueError, ArithmeticError) as error:
        raise RequestError(f"{folder} holds no plain LoRA adapter that can be read: {error}") from error
    return {name: value.float() for name, value in weights.items()}, scale

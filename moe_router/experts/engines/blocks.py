"""Attention of a packed pass in blocks: no token is multiplied with those of requests that it must not see.

With one mask for all, sixteen requests of sixty tokens cost sixteen times the attention that they need, a
third of the whole pass on a CPU. On a GPU one big kernel is faster than many small ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.cpu_products import by_mkl

NAME: Final = "mole_blocks"
"""Under which transformers knows it (https://huggingface.co/docs/transformers/en/attention_interface)."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbours among a pass's tokens, of one request, and the slots that one of them or more sees."""

    rows: slice
    """their places in the pass"""
    slots: npt.NDArray[np.int64]
    """ascending"""
    allowed: npt.NDArray[np.bool_]
    """(n_rows, n_slots)"""
    distance: npt.NDArray[np.int64]
    """(n_rows, n_slots), in positions"""

    def seen(self, window: int | None) -> npt.NDArray[np.bool_]:
        """What each token sees: (n_rows, n_slots); `window` positions at most, where there is one."""
        return self.allowed if window is None else self.allowed & (self.distance < window)


def use_blocks(model: Any) -> bool:
    """Lets a model that is on a CPU as a whole attend in blocks; whether it does."""
    on_cpu = all(weights.device.type == "cpu" for weights in model.parameters())
    if on_cpu and _implementation(model) == "sdpa" and model._can_set_attn_implementation():
        model.set_attn_implementation(NAME)
    return _implementation(model) == NAME


def use_one_mask(model: Any) -> None:
    """Takes that back."""
    model.set_attn_implementation("sdpa")


def _implementation(model: Any) -> str:
    """Of the decoder: a model of several parts may have others."""
    return str(getattr(getattr(model.get_decoder(), "config", None), "_attn_implementation", None))


def masks_of(blocks: Sequence[Block], window: int | None) -> torch.Tensor:
    """What is handed to a model as its mask: it passes it on unread, to `_attend`.

    Args:
        blocks: of the pass, in its order.
        window: how far a token sees; None: however far.
    """
    parts = []
    for block in blocks:
        hidden = ~torch.from_numpy(block.seen(window))
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)  # float32 goes with any query
        parts.append((block.rows, torch.from_numpy(block.slots), mask[None, None]))
    carrier: Any = torch.full((1, 1, 1, 1), torch.nan)  # whoever reads it must not take it for a mask
    carrier.blocks = parts
    found: torch.Tensor = carrier
    return found


class _Passes(threading.local):
    """Whether this thread is in a packed pass."""

    packed = False


_passes = _Passes()


@contextmanager
def packed_pass() -> Iterator[None]:
    """Within, a mask without blocks is none: some models make their own of what they are given."""
    _passes.packed = True
    try:
        yield
    finally:
        _passes.packed = False


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' own for scaled_dot_product_attention, which also takes the passes that are not packed.

    Returns:
        (1, n_tokens, n_heads, head_dim).

    Raises:
        ModelAssetError: the model has not passed on the mask of a packed pass.
    """
    blocks = getattr(attention_mask, "blocks", None)
    if blocks is None:
        if _passes.packed:
            raise ModelAssetError(f"{type(module).__name__} does not pass its mask on")
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **given)
    shared = query.shape[1] != key.shape[1]
    attended = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    with by_mkl():
        for rows, slots, mask in blocks:
            attended[:, rows] = scaled_dot_product_attention(
                query[:, :, rows],
                key.index_select(2, slots),
                value.index_select(2, slots),
                attn_mask=mask,
                scale=scaling,
                enable_gqa=shared,
            ).transpose(1, 2)
    return attended, None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)

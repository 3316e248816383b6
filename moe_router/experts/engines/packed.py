"""Many requests in one forward pass without padding: all tokens in one row, told apart by the mask.

Each *segment* is a chain of tokens that sees a stated set of earlier tokens (its context) and its own
past. Prompts are segments that see a template's cached head; the branches of a label trie are
segments that see their prompt and the branch they grow from. So one pass serves requests of any
lengths and templates and whole label trees; no key or value is kept twice; and a
request's numbers cannot depend on what else is in the pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from moe_router.experts.engines.blocks import Block, masks_of, packed_pass
from moe_router.experts.engines.cpu_products import rounded_rows
from moe_router.experts.engines.last_layer import LastLayer
from moe_router.experts.engines.mixed import MixedLora, Run, runs_of

Slots = npt.NDArray[np.int64]
KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""For each layer keys and values, (1, n_kv_heads, n_tokens, head_dim)."""

NO_SLOTS: Slots = np.empty(0, dtype=np.int64)
NOBODYS = 1 << 31
"""The block of the tokens that only fill up a pass."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A queued chain of tokens: what it sees, its own slots, first position, adapter, and block."""

    tokens: Sequence[int]
    context: Slots
    slots: Slots
    start: int
    adapter: str | None
    block: int


class PackedModel:
    """A causal decoder that takes explicit attention masks.

    Args:
        decoder: the transformer without its LM head (`model.model`).
        config: its configuration.
        device: where its embedding lives.
        mixed: adds the adapters' updates.
        in_blocks: whether it attends in blocks, see `blocks.use_blocks`.
        last_layer: spares it what nobody reads.
    """

    def __init__(
        self,
        decoder: Any,
        config: Any,
        device: torch.device,
        mixed: MixedLora,
        *,
        in_blocks: bool = False,
        last_layer: LastLayer | None = None,
    ) -> None:
        self._decoder = decoder
        self._mixed = mixed
        self._last_layer = last_layer
        self.device = device
        self.in_blocks = in_blocks
        self._eager = getattr(config, "_attn_implementation", "sdpa") == "eager"
        window = getattr(config, "sliding_window", None)
        self._window = int(window) if window else None
        default = "sliding_attention" if self._window else "full_attention"
        self._kinds = tuple(sorted(set(getattr(config, "layer_types", None) or [default])))

    def forward(
        self,
        tokens: Sequence[int],
        positions: Slots,
        blocks: Sequence[Block],
        cache: DynamicCache,
        runs: Sequence[Run],
        wanted: Sequence[int],
    ) -> torch.Tensor:
        """Passes one packed row, whose keys and values join the cache.

        Returns:
            Hidden states of the wanted tokens, in that order: (n_wanted, hidden_size).
        """
        masks = {kind: self._mask(kind, blocks) for kind in self._kinds}
        with (
            self._mixed.using(runs),
            packed_pass() if self.in_blocks else nullcontext(),
            self._last_layer.only(wanted) if self._last_layer is not None else nullcontext(),
        ):
            output = self._decoder(
                input_ids=torch.tensor([list(tokens)], device=self.device),
                position_ids=torch.from_numpy(positions).unsqueeze(0).to(self.device),
                attention_mask=masks if len(masks) > 1 else masks[self._kinds[0]],
                past_key_values=cache,
                use_cache=True,
            )
        hidden: torch.Tensor = output.last_hidden_state[0, list(wanted)]
        return hidden

    def _mask(self, kind: str, blocks: Sequence[Block]) -> torch.Tensor:
        window = self._window if kind == "sliding_attention" else None
        if self.in_blocks:
            return masks_of(blocks, window)
        [all_of_it] = blocks
        mask = torch.from_numpy(all_of_it.seen(window))[None, None].to(self.device)
        if not self._eager:
            return mask
        dtype = next(self._decoder.parameters()).dtype
        return torch.zeros(mask.shape, dtype=dtype, device=self.device).masked_fill(
            ~mask, torch.finfo(dtype).min
        )


class PackedSession:
    """A growing row of tokens on one model.

    Args:
        model: the model.
        heads: keys and values of the cached heads to begin with, in the order of their slots.
    """

    def __init__(self, model: PackedModel, heads: Iterable[KeyValues] = ()) -> None:
        self._model = model
        heads = list(heads)
        lengths = [head[0][0].shape[2] for head in heads]
        joined = (
            heads[0] if len(heads) == 1 else [_concatenated(layers) for layers in zip(*heads, strict=True)]
        )
        self._cache = DynamicCache(joined) if heads else DynamicCache()
        self._positions: Slots = np.concatenate([np.arange(n) for n in lengths]) if heads else NO_SLOTS
        self._queue: list[Segment] = []
        starts = np.cumsum([0, *lengths])
        self.head_slots: list[Slots] = [np.arange(a, b) for a, b in pairwise(starts)]
        self._next = int(starts[-1])

    def add(
        self,
        tokens: Sequence[int],
        context: Slots,
        start: int,
        adapter: str | None = None,
        *,
        block: int = 0,
    ) -> Slots:
        """Queues a chain of tokens for the next pass.

        Args:
            tokens: its tokens.
            context: slots that every one of them sees, already computed or queued before.
            start: the position of the first.
            adapter: whose update they get; all that they see should be of the same.
            block: neighbours of one block attend together, as a label trie's branches: what is in it must
                hang on the request alone.

        Returns:
            The slots of its tokens.
        """
        slots = np.arange(self._next, self._next + len(tokens))
        self._next += len(tokens)
        self._queue.append(Segment(tokens, context, slots, start, adapter, block))
        return slots

    def run(self, wanted: Sequence[int]) -> torch.Tensor:
        """Computes what is queued.

        Args:
            wanted: places of tokens in the queue, whose hidden states are wanted: at least one.

        Returns:
            These, in that order: (n_wanted, hidden_size).
        """
        base = len(self._positions)
        queued = self._next - base
        if self._model.device.type == "cpu" and (spare := rounded_rows(queued) - queued):
            self.add([0] * spare, NO_SLOTS, 0, self._queue[-1].adapter, block=NOBODYS)
        queue, self._queue = self._queue, []
        fresh = np.concatenate([np.arange(s.start, s.start + len(s.tokens)) for s in queue])
        self._positions = np.concatenate([self._positions, fresh])
        parts = _blocks_of(queue) if self._model.in_blocks else [queue]
        blocks = [self._block(part, base) for part in parts]
        tokens = [token for segment in queue for token in segment.tokens]
        runs = runs_of([(segment.adapter, len(segment.tokens)) for segment in queue])
        return self._model.forward(tokens, fresh, blocks, self._cache, runs, wanted)

    def _block(self, segments: Sequence[Segment], base: int) -> Block:
        """What the tokens of neighbouring segments see; the pass's first token has the slot `base`."""
        first, last = int(segments[0].slots[0]), int(segments[-1].slots[-1]) + 1
        seen = np.zeros(self._next, dtype=np.bool_)
        seen[first:last] = True
        for segment in segments:
            seen[segment.context] = True
        if not self._model.in_blocks:
            seen[:] = True  # the mask of a whole pass has a column for every slot
        slots = np.flatnonzero(seen)
        place = np.cumsum(seen) - 1
        allowed = np.zeros((last - first, len(slots)), dtype=np.bool_)
        for segment in segments:
            size, row = len(segment.tokens), int(segment.slots[0]) - first
            column = int(place[segment.slots[0]])
            allowed[row : row + size, place[segment.context]] = True
            allowed[row : row + size, column : column + size] = np.tri(size, dtype=np.bool_)
        distance = self._positions[first:last, None] - self._positions[None, slots]
        return Block(slice(first - base, last - base), slots, allowed, distance)

    def key_values(self, count: int) -> KeyValues:
        """Keys and values of the first slots."""
        layers: Any = self._cache.layers
        return [(layer.keys[:, :, :count].clone(), layer.values[:, :, :count].clone()) for layer in layers]


def _blocks_of(queue: Sequence[Segment]) -> list[list[Segment]]:
    """Neighbours of one block."""
    return [list(part) for _, part in groupby(queue, key=attrgetter("block"))]


def _concatenated(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    if len(layers) == 1:
        return layers[0]
    return torch.cat([keys for keys, _ in layers], dim=2), torch.cat([values for _, values in layers], dim=2)

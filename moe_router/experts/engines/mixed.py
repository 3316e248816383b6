"""Several LoRA adapters in one pass: each run of tokens gets the update of its own adapter.

The base layer multiplies all tokens of a packed pass at once, and each adapter then adds
scaling × B(A(x)) to its own stretch of them. So a batch of many adapters reads the base weights once,
as a batch of one adapter does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from moe_router.experts.engines.cpu_products import rounded_rows

Run = tuple[str | None, int, int]
"""An adapter's name, and the first and the last token but one that are its own."""

_ATTRIBUTE = "_mole_mixed_lora"


class MixedLora:
    """The hooks on a model's LoRA layers; there is one of these for a model."""

    def __init__(self) -> None:
        self.runs: Sequence[Run] = ()
        """of the tokens that pass now"""
        self._hooked: set[int] = set()

    @classmethod
    def of(cls, model: Any) -> MixedLora:
        """The model's own, made at the first call."""
        known = getattr(model, _ATTRIBUTE, None)
        if known is None:
            known = cls()
            object.__setattr__(model, _ATTRIBUTE, known)
        assert isinstance(known, cls)  # noqa: S101  set nowhere else
        return known

    def attach(self, layers: Sequence[Any]) -> None:
        """Puts hooks on layers that have none yet, and switches peft's own updates off."""
        for layer in layers:
            layer.enable_adapters(False)
            if id(layer) not in self._hooked:
                layer.register_forward_hook(self._add)
                self._hooked.add(id(layer))

    @contextmanager
    def using(self, runs: Sequence[Run]) -> Iterator[None]:
        """Within, passes are of these runs of tokens."""
        self.runs = runs
        try:
            yield
        finally:
            self.runs = ()

    def _add(self, layer: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
        own = [run for run in self.runs if run[0] is not None and run[0] in layer.lora_A]
        if not own:
            return output
        # Some models have lost the batch's dimension here: OPT before its feed-forward part.
        given, found = inputs[0].flatten(0, -2), output.flatten(0, -2)
        for name, start, stop in own:
            down = layer.lora_A[name]
            # As many rows as `rounded_rows` says, with those before or after; their update is dropped.
            width = min(rounded_rows(stop - start), found.shape[0])
            first = min(start, found.shape[0] - width)
            part = down(given[first : first + width].to(down.weight.dtype))
            update = layer.lora_B[name](part)[start - first : stop - first].to(found.dtype)
            found[start:stop] += update * layer.scaling[name]
        return found.view(output.shape)


def is_plain(layers: Sequence[Any], name: str, head: Any) -> bool:
    """Whether an adapter is nothing but scaling × B(A(x)) on linear layers: no DoRA, no embeddings.

    Nor anything on the output layer `head`, which is asked outside of the passes that have runs.
    """
    for layer in layers:
        embeds = name in getattr(layer, "lora_embedding_A", {})
        if not embeds and name not in layer.lora_A:  # another adapter's
            continue
        odd = embeds or name in getattr(layer, "lora_variant", {})
        odd = odd or (layer is head and name in layer.lora_A)
        if odd or not isinstance(layer.get_base_layer(), torch.nn.Linear):
            return False
    return True


def runs_of(adapters: Sequence[tuple[str | None, int]]) -> list[Run]:
    """Runs from the chains' adapters and numbers of tokens; neighbours of one adapter are joined."""
    runs: list[Run] = []
    at = 0
    for name, count in adapters:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], at + count)
        else:
            runs.append((name, at, at + count))
        at += count
    return runs

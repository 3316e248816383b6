"""The last layer's feed-forward part, for the tokens alone whose hidden states are read.

All tokens pass through a layer so that later ones can attend to their keys and values; after the last layer's
attention nobody does. Its feed-forward part is two thirds of a layer's work, and of a classified text one
token's hidden state is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from moe_router.experts.engines.cpu_products import rounded_rows
from moe_router.experts.engines.mixed import MixedLora, Run


class LastLayer:
    """A decoder's last feed-forward part.

    Args:
        part: it takes (1, n_tokens, hidden_size) and treats each token by itself.
        mixed: adds the adapters' updates in it.
    """

    def __init__(self, part: torch.nn.Module, mixed: MixedLora) -> None:
        self._part = part
        self._mixed = mixed

    @classmethod
    def of(cls, decoder: Any, mixed: MixedLora) -> LastLayer | None:
        """The decoder's own; None where it has none of linear layers alone, as a mixture of experts."""
        layers = getattr(decoder, "layers", None)
        part = getattr(layers[-1], "mlp", None) if layers else None
        if not isinstance(part, torch.nn.Module):
            return None
        inner = [module for module in part.modules() if any(True for _ in module.parameters(recurse=False))]
        linear = inner and all(isinstance(module, torch.nn.Linear) for module in inner)
        return cls(part, mixed) if linear else None

    @contextmanager
    def only(self, rows: Sequence[int]) -> Iterator[None]:
        """Within, a pass computes these tokens' alone; the others' hidden states mean nothing."""
        ascending = sorted(set(rows))
        spare = rounded_rows(len(ascending)) - len(ascending)
        picked = ascending + ascending[-1:] * spare
        runs = self._mixed.runs
        whole: tuple[int, ...] = ()

        def pick(_part: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            nonlocal whole
            hidden, *others = given
            whole = hidden.shape
            self._mixed.runs = runs_at(runs, picked)
            return (hidden[:, picked], *others)

        def put_back(
            _part: torch.nn.Module, _given: tuple[torch.Tensor, ...], found: torch.Tensor
        ) -> torch.Tensor:
            self._mixed.runs = runs  # some layers have more adapted parts behind this one
            all_tokens = found.new_zeros(whole)
            all_tokens[:, picked] = found
            return all_tokens

        hooks = [self._part.register_forward_pre_hook(pick), self._part.register_forward_hook(put_back)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def runs_at(runs: Sequence[Run], rows: Sequence[int]) -> list[Run]:
    """The runs of some of the tokens, in ascending order, when these alone stand one after another."""
    found = []
    for name, start, stop in runs:
        inside = [place for place, row in enumerate(rows) if start <= row < stop]
        if inside:
            found.append((name, inside[0], inside[-1] + 1))
    return found

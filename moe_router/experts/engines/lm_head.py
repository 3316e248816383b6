"""Logits of single tokens: only the rows of the LM head that are asked for are multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from moe_router.experts.scoring import Floats


class LmHead:
    """The output layer of a causal model.

    Args:
        model: an `AutoModelForCausalLM`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config.get_text_config(decoder=True)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        # Granite divides its logits, Cohere multiplies them.
        times, over = (getattr(config, name, None) or 1 for name in ("logit_scale", "logits_scaling"))
        self._scale = times / over

    def rows(
        self, hidden: torch.Tensor, choices: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, dict[int, int]]:
        """The logits of every token that any row asks for.

        Args:
            hidden: (n_rows, hidden_size), the decoder's last hidden states.
            choices: for each row the tokens asked for.

        Returns:
            (n_rows, n_tokens) float32, and the column of each token.
        """
        head = self._model.get_output_embeddings()
        if getattr(head, "disable_adapters", False):  # some adapter's layer, but not of the one in use
            head = head.get_base_layer()
        tokens = sorted({token for row in choices for token in row})
        if type(head) is torch.nn.Linear:
            # In float64, for which nothing is compiled: these shapes hardly repeat.
            weight = head.weight[tokens].double()
            values = (hidden.to(weight.device).double() @ weight.T).float()
            if head.bias is not None:
                values += head.bias[tokens].float()
        else:  # quantised, or with the adapter in use
            values = head(hidden)[:, tokens].float()
        if self._scale != 1:
            values = values * self._scale
        if self._softcap is not None:
            values = torch.tanh(values / self._softcap) * self._softcap
        return values, {token: index for index, token in enumerate(tokens)}

    def logits(self, hidden: torch.Tensor, choices: Sequence[Sequence[int]]) -> list[Floats]:
        """Each row's logits of its own choices: (n_choices,) float64 for each; arguments as of `rows`."""
        values, place = self.rows(hidden, choices)
        table = values.double().cpu().numpy()
        return [table[index, [place[token] for token in row]] for index, row in enumerate(choices)]

"""Whether a model can be served in packed passes: some ignore masks or positions, or scale their logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.lm_head import LmHead
from moe_router.experts.engines.packed import NO_SLOTS, PackedModel, PackedSession
from moe_router.experts.engines.tokens import HfTokens

TOLERANCE = 2e-3
"""How far the logits of a packed and a plain pass may differ, in units of their spread; it is near 5e-6."""
TOLERANCE_16_BIT = 0.2
"""The same in bfloat16 and float16: rounding alone makes up to 0.1, a wrong mask 0.7 and more."""
OTHERS = 48
"""Tokens of a neighbour."""
ROWS = 512
"""At most so many logits are compared, spread over the vocabulary: of a few the worst is a matter of luck."""


def check_packing(
    model: Any,
    packed: PackedModel,
    tokens: HfTokens,
    head: LmHead,
) -> None:
    """Compares a packed pass with a plain one, without adapters.

    What is compared is the standard deviation of the logits' differences with that of the logits: what all
    share changes no probability.

    Raises:
        ModelAssetError: they differ.
    """
    text = list(tokens.encode("One, two, three: a packed pass must equal a plain one.", trusted=True))
    with torch.inference_mode():
        plain = model(torch.tensor([text], device=packed.device)).logits[0, -1]
        rows = list(range(0, plain.shape[0], -(-plain.shape[0] // ROWS)))
        session = PackedSession(packed)
        others = (text[::-1] * OTHERS)[:OTHERS]
        session.add(others, NO_SLOTS, 0, block=1)  # neighbours that must not be seen
        first = session.add(text[:4], NO_SLOTS, 0)
        session.add(others, NO_SLOTS, 0, block=2)
        session.run([0])
        session.add(others[1:] + others[:1], NO_SLOTS, 0, block=3)
        session.add(text[4:], first, 4)
        session.add(others[2:] + others[:2], NO_SLOTS, 0, block=4)
        at = OTHERS + len(text) - 4 - 1
        [own] = head.logits(session.run([at]), [rows])
    wanted = plain[rows].double().cpu().numpy()
    difference = float(np.std(own - wanted) / np.std(wanted))
    exact = model.get_input_embeddings().weight.dtype.itemsize > 2
    if not difference <= (TOLERANCE if exact else TOLERANCE_16_BIT):
        raise ModelAssetError(
            f"{type(model).__name__} cannot be served: its logits differ by {difference:.3g} of their spread "
            "when requests share a pass (it ignores masks or positions, or has logits of its own kind)"
        )


def keeps_requests_apart(packed: PackedModel, tokens: HfTokens) -> bool:
    """Whether hidden states are the same, to the last bit, whatever else is in their pass."""
    text = list(tokens.encode("One, two, three: what stands beside it must change nothing.", trusted=True))
    requests = [text, text[::-1] * 4, text[3:], text[:1]]

    def hidden(among: Sequence[int]) -> list[torch.Tensor]:
        session = PackedSession(packed)
        ends: list[int] = []
        for request in among:
            session.add(requests[request], NO_SLOTS, 0, block=request)
            ends.append(len(requests[request]) + (ends[-1] if ends else 0))
        return list(session.run([end - 1 for end in ends]))

    with torch.inference_mode():
        together = hidden(range(len(requests)))
        return all(torch.equal(hidden([each])[0], together[each]) for each in range(len(requests)))

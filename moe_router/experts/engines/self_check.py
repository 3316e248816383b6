"""Whether a model can be served in packed passes: some ignore masks or positions, or scale their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.blocks import LEAST_ROWS
from moe_router.experts.engines.lm_head import LmHead
from moe_router.experts.engines.packed import NO_SLOTS, PackedModel, PackedSession
from moe_router.experts.engines.tokens import HfTokens

TOLERANCE = 2e-3
"""How far the logits of a packed and a plain pass may differ, in units of their spread; it is near 5e-6."""
TOLERANCE_16_BIT = 0.2
"""The same in bfloat16 and float16: rounding alone makes up to 0.1, a wrong mask 0.7 and more."""
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
        # Neighbours that must not be seen: other texts, each long enough to be a block of its own.
        others = (text[::-1] * LEAST_ROWS)[:LEAST_ROWS]
        session.add(others, NO_SLOTS, 0)
        first = session.add(text[:4], NO_SLOTS, 0)
        session.add(others, NO_SLOTS, 0)
        session.run([0])
        session.add(others[1:] + others[:1], NO_SLOTS, 0)
        session.add(text[4:], first, 4)
        session.add(others[2:] + others[:2], NO_SLOTS, 0)
        at = LEAST_ROWS + len(text) - 4 - 1
        [own] = head.logits(session.run([at]), [rows])
    wanted = plain[rows].double().cpu().numpy()
    difference = float(np.std(own - wanted) / np.std(wanted))
    exact = model.get_input_embeddings().weight.dtype.itemsize > 2
    if not difference <= (TOLERANCE if exact else TOLERANCE_16_BIT):
        raise ModelAssetError(
            f"{type(model).__name__} cannot be served: its logits differ by {difference:.3g} of their spread "
            "when requests share a pass (it ignores attention masks or positions)"
        )

"""Whether a model can be served in packed passes: some ignore masks or positions, or scale their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.lm_head import LmHead
from moe_router.experts.engines.packed import NO_SLOTS, PackedModel, PackedSession
from moe_router.experts.engines.tokens import HfTokens

SELF_CHECK_TOLERANCE = 0.05
"""Greatest difference of logits between a packed and a plain pass; in float32 it is near 1e-4."""
SELF_CHECK_TOLERANCE_16_BIT = 0.5
"""The same in bfloat16 and float16, whose rounding alone makes up to 0.4; a wrong mask makes 2 and more."""


def check_packing(
    model: Any,
    packed: PackedModel,
    tokens: HfTokens,
    head: LmHead,
) -> None:
    """Compares a packed pass with a plain one, without adapters.

    Raises:
        ModelAssetError: they differ.
    """
    text = list(tokens.encode("One, two, three: a packed pass must equal a plain one.", trusted=True))
    with torch.inference_mode():
        plain = model(torch.tensor([text], device=packed.device)).logits[0, -1]
        session = PackedSession(packed)
        first = session.add(text[:4], NO_SLOTS, 0)
        session.add(text[:4], NO_SLOTS, 0)  # a neighbour that must not be seen
        session.run()
        session.add(text[4:], first, 4)
        [own] = head.logits(session.run()[-1:], [text])
    difference = float(np.abs(own - plain[text].double().cpu().numpy()).max())
    tolerance = SELF_CHECK_TOLERANCE if plain.dtype.itemsize > 2 else SELF_CHECK_TOLERANCE_16_BIT
    if not difference <= tolerance * max(1.0, float(np.abs(own).max()) / 10):
        raise ModelAssetError(
            f"{type(model).__name__} cannot be served: its logits differ by {difference:.3g} "
            "when requests share a pass (it ignores attention masks or positions)"
        )

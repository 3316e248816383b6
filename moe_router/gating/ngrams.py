"""A linear model over hashed character n-grams that knows a few languages well, also in short texts.

lid.176 hardly knows some languages (Yoruba) and errs on cuts of a few words. This model, fitted on
sentences of the languages that the project serves, is its second opinion; see
`moe_router.gating.language` for how the two are joined.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moe_router.errors import ModelAssetError
from moe_router.gating.heads import softmax
from moe_router.gating.weights import Floats, load

WEIGHTS = "language"
"""Name of the weight files."""

BUCKETS = 1 << 15
ORDERS = (1, 2, 3, 4)
IDENTITY = f"character n-grams {ORDERS} in {BUCKETS} buckets"
_MULTIPLIERS = (1, 1_000_003, 998_244_353, 754_974_721)


def buckets(text: str) -> NDArray[np.int64]:
    """The buckets of a text's n-grams, one each; the text is lowered and its words set apart by spaces."""
    points = np.frombuffer(f" {' '.join(text.lower().split())} ".encode("utf-32-le", "ignore"), "<u4").astype(
        np.int64
    )
    parts = []
    for order in ORDERS:
        count = len(points) - order + 1
        if count <= 0:
            break
        value = np.full(count, order * 7_919, np.int64)
        for offset in range(order):
            value += points[offset : offset + count] * _MULTIPLIERS[offset]
        # Multiply-shift spreads neighbouring code points over all buckets.
        parts.append((value * 0x9E3779B1 & 0xFFFFFFFF) >> 17)
    return np.concatenate(parts)


class NgramModel:
    """Classifies the languages it was trained on. Pure and thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Loads language.safetensors and language.json.

        Raises:
            ModelAssetError: they are missing or damaged.
        """
        weights = load(folder, WEIGHTS, encoder=IDENTITY, hidden=BUCKETS)
        try:
            self._weight: Floats = weights.arrays["weight"]
            self._bias: Floats = weights.arrays["bias"]
            self.languages: tuple[str, ...] = tuple(weights.meta["languages"])
            self._temperature = np.float32(weights.meta["temperature"])
        except KeyError as error:
            raise ModelAssetError(f"the language weights in {folder} lack {error}") from error
        count = len(self.languages)
        if self._weight.shape != (BUCKETS, count) or self._bias.shape != (count,):
            raise ModelAssetError(f"the language weights in {folder} are of other dimensions")

    def best(self, text: str) -> tuple[str, float, float]:
        """The likeliest language, its share among `languages`, and how familiar the text looks.

        Familiarity is the best logit: about 2.5 for a sentence of a trained language, below 0 for
        most of another language, whose n-grams have no weights.
        """
        grams = buckets(text)
        logits = np.add.reduce(self._weight.take(grams, axis=0)) / len(grams) + self._bias
        index = int(logits.argmax())
        share = softmax(logits / self._temperature)
        return self.languages[index], float(share[index]), float(logits[index])

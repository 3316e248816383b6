"""What the words of a description ask for: a second opinion beside the encoder's reading of it.

The encoder reads meaning and is at its weakest where a request is a few words long, slang or mistyped;
hashed character n-grams know such wordings by sight. Both are joined as a product of experts (Hinton, 2002):

    p(k) ~ p_encoder(k) q(k)^weight,   q = (1 - FLOOR) softmax(n-grams) + FLOOR / classes

The floor bounds what the words can say, at `weight` times some 4.5 nats, so that they tip what the encoder
leaves undecided and do not overrule what it, or the feedback of callers, is sure of. A task that is new has
no n-grams of its own; it is treated as the likeliest of the others, which leaves its odds to the encoder.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from moe_router.errors import ModelAssetError
from moe_router.gating.heads import NONE, Distribution, softmax
from moe_router.gating.ngrams import BUCKETS, IDENTITY, buckets
from moe_router.gating.weights import Floats, Weights, load

WEIGHTS = "wording"
"""Name of the weight files."""
FLOOR = 0.1
MOST_CHARACTERS = 2000
"""More of a description says nothing new."""
KEPT = 4096
"""Descriptions repeat: so many opinions are kept."""
_LEAST = np.float32(1e-9)


def joined(words: Wording | None, description: str | None, tasks: Distribution) -> Distribution:
    """What the words add to what the encoder makes of a request; nothing where there are none."""
    return words(description, tasks) if words is not None and description else tasks


class Wording:
    """Joins what the words say to a distribution over the tasks. Pure and thread-safe."""

    def __init__(self, weights: Weights) -> None:
        """Takes trained weights.

        Args:
            weights: arrays `weight` (BUCKETS, classes) and `bias` (classes,), and the meta data `classes`
                (task keys and "none"), `weight` (of this opinion) and `temperature` (of the joined one).

        Raises:
            ModelAssetError: they do not fit.
        """
        try:
            self._weight, self._bias = weights.arrays["weight"], weights.arrays["bias"]
            self.classes: tuple[str, ...] = tuple(weights.meta["classes"])
            self._share = np.float32(weights.meta["weight"])
            self._temperature = np.float32(weights.meta["temperature"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelAssetError(f"the weights of the wording lack {error}") from error
        count = len(self.classes)
        fits = self._weight.shape == (BUCKETS, count) and self._bias.shape == (count,)
        if not fits or NONE not in self.classes:
            raise ModelAssetError("the weights of the wording do not fit their description")
        self._kept = lru_cache(maxsize=KEPT)(self._opinion)

    @classmethod
    def load(cls, folder: Path) -> Wording | None:
        """Reads wording.safetensors and wording.json; None where the folder has none.

        Raises:
            ModelAssetError: they are damaged.
        """
        if not (folder / f"{WEIGHTS}.safetensors").is_file():
            return None
        return cls(load(folder, WEIGHTS, encoder=IDENTITY, hidden=BUCKETS))

    def __call__(self, description: str, tasks: Distribution) -> Distribution:
        """The joined distribution.

        Args:
            description: what the caller asks.
            tasks: what the encoder makes of it. What it leaves to the text, the words do not decide either.
        """
        given = np.log(np.maximum(np.append(tasks.probabilities, tasks.none), _LEAST)).astype(np.float32)
        told = self.opinion(description, tasks.names)
        closed = np.float32(1.0 - min(max(tasks.open, 0.0), 1.0))
        joined = (given + self._share * told) / self._temperature
        p = softmax((1 - closed) * given + closed * joined)
        return Distribution(tasks.names, p[:-1], float(p[-1]), tasks.open)

    def opinion(self, description: str, names: tuple[str, ...]) -> Floats:
        """The log of q of each of the names, and of none at the end: (len(names) + 1,) float32."""
        return self._kept(description[:MOST_CHARACTERS], names)

    def _opinion(self, description: str, names: tuple[str, ...]) -> Floats:
        by_class = dict(zip(self.classes, self._read(description).tolist(), strict=True))
        # What asks for a task that is not on offer asks for none.
        none = by_class[NONE] + sum(p for name, p in by_class.items() if name not in (*names, NONE))
        found = [by_class.get(name) for name in names]
        likeliest = max([none, *(p for p in found if p is not None)])
        q = np.array([*(likeliest if p is None else p for p in found), none], np.float32)
        return np.asarray(np.log((1 - FLOOR) * q + FLOOR / len(self.classes)), np.float32)

    def _read(self, description: str) -> Floats:
        grams = np.unique(buckets(description))
        logits = np.add.reduce(self._weight.take(grams, axis=0)) / np.sqrt(np.float32(len(grams)))
        return softmax(logits + self._bias)

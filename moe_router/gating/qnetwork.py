"""The Q-network: the value of taking an action in a state, as a forward pass in NumPy.

    Q(s, a) = w3 · relu(W2 relu(We [d, t] + Wa phi(s, a) + b1) + b2) + b3

d and t are the encodings of description and text (zeros where there is none), phi what else is
known of the state and the action (`FEATURES`). The action is an input, not an output, so that an
expert that came into the registry after training has a value too. An action is asking an expert or
the probe, or accepting one of the answers so far. The price of asking is an input as well, so that
one network serves every weighing of cost against quality. Trained by
`moe_router.training.qlearning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from moe_router.errors import ModelAssetError
from moe_router.gating.weights import Floats, Weights

WEIGHTS = "qnetwork"
"""Name of the weight files."""

FEATURES = (
    "task_probability", "none_probability", "domain_probability", "language_probability", "undetermined",
    "accept", "probe", "expert", "price", "skill", "confidence", "margin", "agreement",
    "asked", "best_confidence", "best_margin", "best_skill", "disagreement",
)  # fmt: skip
"""What phi holds, in order."""

PRIOR_SKILL = 0.75
"""The skill of an expert of which nothing is known yet."""

MAX_PRICE = 1.0
"""A dearer call is never worth it: a right answer is worth 1."""


@dataclass(frozen=True, slots=True)
class ActionFeatures:
    """phi(s, a); all in [0, 1] but `agreement`, in [-1, 1]."""

    task_probability: float = 0.0
    none_probability: float = 0.0
    domain_probability: float = 0.0
    language_probability: float = 0.0
    undetermined: float = 0.0
    accept: float = 0.0
    """whether the action accepts an answer; else it asks the probe or an expert"""
    probe: float = 0.0
    """whether the answer accepted, or the one asked for, is the probe's"""
    expert: float = 0.0
    """likewise of an LLM expert"""
    price: float = 0.0
    """of asking, in units of a right answer; 0 for the probe and for accepting"""
    skill: float = 0.0
    """share of right answers of whom the action is about"""
    confidence: float = 0.0
    """of the answer accepted"""
    margin: float = 0.0
    """of the answer accepted: how far its probability is above the second's"""
    agreement: float = 0.0
    """of the answer accepted with the other answers: 1 where all give its label, -1 where none does"""
    asked: float = 0.0
    """answers so far, in quarters"""
    best_confidence: float = 0.0
    """of the most confident answer so far, as the next two"""
    best_margin: float = 0.0
    best_skill: float = 0.0
    disagreement: float = 0.0
    """whether two answers so far have different labels"""

    def vector(self) -> Floats:
        """(len(FEATURES),) float32."""
        return np.array(_FIELDS(self), np.float32)


_FIELDS = attrgetter(*FEATURES)


class QNetwork:
    """Evaluates trained weights. Pure and thread-safe."""

    def __init__(self, weights: Weights, hidden: int) -> None:
        """Takes the arrays of the three layers.

        Args:
            weights: `encoding.weight` (width, 2 hidden), `action.weight` (width, features), `1.bias`,
                `2.weight`, `2.bias`, `3.weight`, `3.bias`.
            hidden: the length of the encoder's vectors.

        Raises:
            ModelAssetError: an array is missing or of another shape.
        """
        a = weights.arrays
        try:
            self._encoding, self._action, self._b1 = a["encoding.weight"], a["action.weight"], a["1.bias"]
            self._w2, self._b2, self._w3, self._b3 = a["2.weight"], a["2.bias"], a["3.weight"], a["3.bias"]
        except KeyError as error:
            raise ModelAssetError(f"the Q-network's weights lack {error}") from error
        width, second = len(self._b1), len(self._b2)
        expected = (width, 2 * hidden), (width, len(FEATURES)), (second, width), (1, second), (1,)
        matrices = (self._encoding, self._action, self._w2, self._w3, self._b3)
        other_features = tuple(weights.meta.get("features", FEATURES)) != FEATURES
        if tuple(matrix.shape for matrix in matrices) != expected or other_features:
            raise ModelAssetError(
                "the Q-network's weights are of other dimensions; make new ones with `mole train gating`"
            )

    def state(self, description: Floats | None, text: Floats | None) -> Floats:
        """The part of the first layer that all actions share: (width,) float32."""
        hidden = self._encoding.shape[1] // 2
        value = self._b1.copy()
        if description is not None:
            value += self._encoding[:, :hidden] @ description
        if text is not None:
            value += self._encoding[:, hidden:] @ text
        return value

    def values(self, state: Floats, actions: Floats) -> Floats:
        """Q of each action.

        Args:
            state: from `state`.
            actions: (n, len(FEATURES)) float32.

        Returns:
            (n,) float32: the expected correctness of the final answer less the costs still to come.
        """
        first = np.maximum(actions @ self._action.T + state, 0.0)
        second = np.maximum(first @ self._w2.T + self._b2, 0.0)
        return np.asarray((second @ self._w3.T + self._b3)[:, 0], np.float32)

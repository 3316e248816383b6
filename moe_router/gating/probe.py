"""A probe: a calibrated linear head on the text encoding that answers a task without a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from moe_router.contracts import ExpertAnswer
from moe_router.errors import ModelAssetError
from moe_router.gating.heads import softmax
from moe_router.gating.opinion_pool import OpinionPool
from moe_router.gating.weights import Floats, load
from moe_router.registry import Expert

Pools = Mapping[tuple[str, str], OpinionPool]
"""By the key of the expert's base model and the expert's name."""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The best label, its calibrated probability, and the whole distribution in the order of the labels."""

    label: str
    confidence: float
    margin: float
    probabilities: dict[str, float]
    pools: Pools = field(default_factory=dict, repr=False, compare=False)

    def heard_with(self, expert: Expert, answer: ExpertAnswer) -> ExpertAnswer:
        """The expert's answer, with what the probe adds to it where a pool was fitted for the two."""
        pool = self.pools.get((expert.base_model_key, expert.name))
        if pool is None or answer.probabilities is None or answer.result not in self.probabilities:
            return answer
        joint = pool(self.probabilities, answer.probabilities)
        best = max(joint, key=joint.__getitem__)
        told = {"result": best, "confidence": joint[best], "probabilities": joint}
        return answer.model_copy(update=told)


class Probe:
    """Answers one task from a text's vector. Pure and thread-safe."""

    def __init__(self, path: Path, labels: tuple[str, ...], *, encoder: str, hidden: int) -> None:
        """Loads `path`.safetensors and `path`.json.

        Args:
            path: without a suffix.
            labels: of the task; the probe must have been trained on exactly these.
            encoder: the identity of the encoder in use.
            hidden: the length of its vectors.

        Raises:
            ModelAssetError: the files are missing, damaged, or made for other labels or another encoder.
        """
        weights = load(path.parent, path.name, encoder=encoder, hidden=hidden)
        try:
            self._weight, self._bias = weights.arrays["weight"], weights.arrays["bias"]
            self._temperature = np.float32(weights.meta["temperature"])
            trained = tuple(weights.meta["labels"])
            skill = weights.meta.get("skill")
            self.skill: float | None = None if skill is None else float(skill)
            """share of right answers on texts that it was not fitted on; None where it was not measured"""
            self._pools = _pools(weights.meta.get("pools", ()))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelAssetError(f"the probe {path} lacks {error}") from error
        if set(trained) != set(labels) or len(trained) != len(labels):
            raise ModelAssetError(f"the probe {path} was made for other labels than the registry's")
        if self._weight.shape != (len(trained), hidden) or self._bias.shape != (len(trained),):
            raise ModelAssetError(f"the probe {path} has other dimensions than its description says")
        if not 0 < self._temperature < np.inf:
            raise ModelAssetError(f"the probe {path} has the temperature {self._temperature}")
        self._labels = trained

    def __call__(self, text: Floats) -> ProbeAnswer:
        """Answers from the text's (hidden,) unit vector."""
        p = softmax((self._weight @ text + self._bias) / self._temperature)
        best = int(p.argmax())
        second = float(np.partition(p, -2)[-2]) if len(p) > 1 else 0.0
        probabilities = dict(zip(self._labels, p.tolist(), strict=True))
        return ProbeAnswer(
            self._labels[best], float(p[best]), float(p[best]) - second, probabilities, self._pools
        )


def _pools(entries: Any) -> Pools:
    """Reads a description's pools: an expert's `model_key` and `name`, the weights `probe` and `expert`."""
    found = {}
    for entry in entries:
        pool = OpinionPool(float(entry["probe"]), float(entry["expert"]))
        if not (0 <= pool.probe < np.inf and 0 <= pool.expert < np.inf):
            raise ValueError("weights of a pool that are finite and not negative")
        found[entry["model_key"], entry["name"]] = pool
    return MappingProxyType(found)

"""Arms that are drawn: a probe, an expert, and a stronger or another one.

Each arm is right as often as its confidence says, and arms find the same requests hard. In half of the
episodes with a probe the experts are heard together with it: what such an expert says also follows what
the probe said, and the probe's own answer counts no more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from moe_router.gating.qnetwork import PRIOR_SKILL
from moe_router.training.episodes import PROBE, Episodes

ARMS = 3
SPREAD = 1.4
"""Standard deviation of an arm's logit over the requests."""
ALIKE = 0.6
"""How much of it all arms share; what an arm that is heard with the probe shares with that."""
POOLED = 0.5
"""Share of the episodes with a probe whose experts are heard together with it."""


def drawn_arms(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """A probe, there in six of ten episodes; an expert; and a second one, there in four of ten."""
    skill = np.stack(
        [rng.uniform(0.4, 0.95, count), rng.uniform(0.35, 0.95, count), rng.uniform(0.5, 0.98, count)], axis=1
    )
    offered = np.stack([rng.random(count) < 0.6, rng.random(count) < 0.95, rng.random(count) < 0.4], axis=1)
    offered[~offered.any(1), 1] = True
    pooled = np.zeros((count, ARMS), bool)
    pooled[:, PROBE + 1 :] = (offered[:, PROBE] & (rng.random(count) < POOLED))[:, None]
    ease = _mixed(rng.normal(size=(count, 1)), rng.normal(size=(count, ARMS)))
    ease = np.where(pooled, _mixed(ease[:, [PROBE]], ease), ease)
    logit = np.log(skill / (1 - skill)) + SPREAD * ease
    confidence = 1 / (1 + np.exp(-logit))
    correct = rng.random((count, ARMS)) < confidence
    labels = rng.choice([2, 3, 7, 20, 77], size=(count, 1))
    wrong = 1 + rng.integers(0, labels - 1, (count, ARMS))
    rest = (1 - confidence) * np.where(labels > 2, rng.uniform(0.4, 1.0, (count, ARMS)), 1.0)
    known = rng.random((count, ARMS)) < 0.7
    told = np.clip(skill + rng.normal(scale=0.03, size=skill.shape), 0.0, 1.0)
    return {
        "offered": offered,
        "price": np.stack([np.zeros(count), np.ones(count), rng.uniform(0.5, 5.0, count)], axis=1).astype(
            np.float32
        ),
        "skill": np.where(known, told, PRIOR_SKILL).astype(np.float32),
        "confidence": confidence.astype(np.float32),
        "margin": np.maximum(0.0, confidence - rest).astype(np.float32),
        "label": np.where(correct, 0, wrong),
        "correct": correct,
        "pooled": pooled,
        "drawn": np.ones(count, bool),
    }


def drawn_anew(own: Episodes, rng: np.random.Generator) -> Episodes:
    """The same requests with other arms where these are drawn: else a text would tell who is right on it."""
    if not own.drawn.any():
        return own
    arms = drawn_arms(len(own.target), rng)
    del arms["drawn"]
    anew = own.drawn[:, None]
    return replace(own, **{name: np.where(anew, arm, getattr(own, name)) for name, arm in arms.items()})


def _mixed(common: Any, own: Any) -> Any:
    return ALIKE * common + (1 - ALIKE**2) ** 0.5 * own

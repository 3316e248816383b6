"""What the learner must not forget: the requests that the shipped router was fitted and judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_router.gating.heads import NONE
from moe_router.gating.weights import Floats
from moe_router.training.embedded import Embedded
from moe_router.training.feedback.states import Composed
from moe_router.training.phrasings import OUT_OF_SCOPE, load_phrasings
from moe_router.training.requests import Composer, Request, load_texts
from moe_router.training.simulation import vectors_of

EPISODES = 2_000
"""Simulated requests that anchor the Q-network."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Encoded requests of the training and of the validation families."""

    description: Floats
    """(n, hidden): the anchor of the task head"""
    requests: Sequence[Request]
    """the anchor of the Q-network"""
    embed: Embedded
    guard: Sequence[Composed]
    """the guarded requests, of validation families"""
    guard_target: tuple[str, ...]
    """of each: a task key, or `none`"""


def remember(data: Path | None, embed: Embedded, seed: int = 0) -> Memory:
    """Composes and encodes what must not be forgotten.

    Args:
        data: the folder of the datasets; None for the project's own texts alone.
        embed: the encoder in use.
        seed: of the composition.
    """
    phrasings = [p for p in load_phrasings() if p.split == "train"]
    composer = Composer(load_texts(data, "train", 10, seed), "train", seed)
    rng = np.random.default_rng(seed)
    requests = composer.epoch(EPISODES // 4)
    requests = [requests[i] for i in sorted(rng.permutation(len(requests))[:EPISODES])]
    guarded = Composer(load_texts(data, "validation", 10, seed + 1), "validation", seed + 1).epoch(400)
    _encode_together(requests + guarded, embed)
    return Memory(
        embed([p.text for p in phrasings]),
        requests,
        embed,
        [(r.asked, vectors_of(r, embed)) for r in guarded],
        tuple(_class(request.target) for request in guarded),
    )


def _class(target: str) -> str:
    return NONE if target.startswith(OUT_OF_SCOPE) else target


def _encode_together(requests: Sequence[Request], embed: Embedded) -> None:
    """In large batches, not one by one later."""
    texts = [r.text.text for r in requests if r.text is not None]
    embed(texts + [r.description.text for r in requests if r.description is not None])

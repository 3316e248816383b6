"""Episodes whose experts are drawn, not logged: so the router learns what confidence and skill are worth.

Each arm is right as often as its confidence says; arms find the same requests hard. What gating
says of a request is what it really says. Some callers name the task themselves: then gating is
certain, no description is read, and nothing but the answers is left to weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.heads import MixtureHead
from moe_router.gating.qnetwork import PRIOR_SKILL
from moe_router.gating.weights import Floats
from moe_router.gating.wording import Wording, joined
from moe_router.registry import Registry
from moe_router.training.embedded import Embedded
from moe_router.training.episodes import Episodes
from moe_router.training.requests import Request

UNDETERMINED_SHARE = 0.05
"""Share of the requests whose text is in no language that could be told."""
NAMED = 0.25
"""Share of the requests whose caller names the task."""
ARMS = 3
"""A probe, an expert, and a stronger or another one."""
Heads = tuple[MixtureHead, MixtureHead]
"""The domain head and the task head."""


def simulate(
    requests: Sequence[Request],
    registry: Registry,
    heads: Heads,
    words: Wording | None,
    embed: Embedded,
    seed: int,
) -> Episodes:
    """Episodes of these requests with drawn arms."""
    rng = np.random.default_rng(seed)
    known = gated(requests, registry, heads, words, embed, rng)
    arms = drawn_arms(len(requests), rng)
    name_tasks(known, (rng.random(len(requests)) < NAMED) & (known["target"] >= 0))
    return Episodes(**known, **arms)


def gated(
    requests: Sequence[Request],
    registry: Registry,
    heads: Heads,
    words: Wording | None,
    embed: Embedded,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What gating knows of each request; the language's probability is drawn, and whether there is one."""
    names = tuple(registry.tasks)
    vectors = [vectors_of(request, embed) for request in requests]
    tasks = [joined(words, r.asked, heads[1](*pair)) for r, pair in zip(requests, vectors, strict=True)]
    unknown = rng.random(len(requests)) < UNDETERMINED_SHARE
    sure = np.where(unknown, rng.uniform(0.0, 0.5, len(requests)), rng.beta(8, 1, len(requests)))
    domains = [heads[0](*pair).as_dict() for pair in vectors]
    zero = np.zeros(embed.hidden, np.float32)
    return {
        "description": np.stack([zero if d is None else d for d, _ in vectors]),
        "text": np.stack([zero if t is None else t for _, t in vectors]),
        "task_probability": np.stack([d.probabilities for d in tasks]),
        "none_probability": np.array([d.none for d in tasks], np.float32),
        "domain_probability": np.array(
            [[own.get(name.split("/")[0], 0.0) for name in names] for own in domains], np.float32
        ),
        "language_probability": sure.astype(np.float32),
        "undetermined": unknown,
        "target": np.array([names.index(r.target) if r.target in names else -1 for r in requests], np.intp),
    }


def name_tasks(known: dict[str, Any], named: NDArray[np.bool_]) -> None:
    """Makes of these rows requests whose caller names the task, as the pipeline sees them."""
    tasks = known["target"][named]
    known["description"][named] = 0.0
    known["task_probability"][named] = np.eye(known["task_probability"].shape[1], dtype=np.float32)[tasks]
    known["none_probability"][named] = 0.0
    known["domain_probability"][named] = 0.0
    known["domain_probability"][np.flatnonzero(named), tasks] = 1.0


def drawn_arms(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """A probe, there in six of ten episodes; an expert; and a second one, there in four of ten."""
    skill = np.stack(
        [rng.uniform(0.4, 0.95, count), rng.uniform(0.35, 0.95, count), rng.uniform(0.5, 0.98, count)], axis=1
    )
    hardness = rng.normal(size=(count, 1))
    logit = np.log(skill / (1 - skill)) + 1.4 * (0.6 * hardness + 0.8 * rng.normal(size=(count, ARMS)))
    confidence = 1 / (1 + np.exp(-logit))
    correct = rng.random((count, ARMS)) < confidence
    labels = rng.choice([2, 3, 7, 20, 77], size=(count, 1))
    wrong = 1 + rng.integers(0, labels - 1, (count, ARMS))
    rest = (1 - confidence) * np.where(labels > 2, rng.uniform(0.4, 1.0, (count, ARMS)), 1.0)
    offered = np.stack([rng.random(count) < 0.6, rng.random(count) < 0.95, rng.random(count) < 0.4], axis=1)
    offered[~offered.any(1), 1] = True
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
        "pooled": np.zeros((count, ARMS), bool),
    }


def vectors_of(request: Request, embed: Embedded) -> tuple[Floats | None, Floats | None]:
    """The vectors of a request's description and text."""
    described = None if request.description is None else embed([request.description.text])[0]
    return described, None if request.text is None else embed([request.text.text])[0]

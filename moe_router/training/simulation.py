"""Episodes whose experts are drawn, not logged: so the router learns what confidence and skill are worth.

What gating says of a request is what it really says; the arms are those of
`moe_router.training.arms`. Some callers name the task themselves: then gating is certain, no
description is read, and nothing but the answers is left to weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.heads import MixtureHead
from moe_router.gating.weights import Floats
from moe_router.gating.wording import Wording, joined
from moe_router.registry import Registry
from moe_router.training.arms import drawn_arms
from moe_router.training.embedded import Embedded
from moe_router.training.episodes import Episodes
from moe_router.training.requests import Request

UNDETERMINED_SHARE = 0.05
"""Share of the requests whose text is in no language that could be told."""
NAMED = 0.25
"""Share of the requests whose caller names the task."""
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


def vectors_of(request: Request, embed: Embedded) -> tuple[Floats | None, Floats | None]:
    """The vectors of a request's description and text."""
    described = None if request.description is None else embed([request.description.text])[0]
    return described, None if request.text is None else embed([request.text.text])[0]

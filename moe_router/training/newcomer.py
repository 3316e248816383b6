"""How a task fares that no weight has seen: gating is made without it, and then only told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moe_router.gating.encoder import Encoder
from moe_router.gating.pipeline import GatingPipeline
from moe_router.registry import Registry
from moe_router.training.evaluate import Judged


@dataclass(frozen=True, slots=True)
class Reach:
    """What became of the requests for a task, in shares of them."""

    reached: float
    abstained: float
    elsewhere: float
    """served by another task"""
    n: int

    @classmethod
    def of(cls, judged: Sequence[Judged]) -> Reach:
        """Sums up."""
        count = Counter(
            "reached"
            if one.answered == one.request.target
            else "elsewhere"
            if one.decision.task
            else "abstained"
            for one in judged
        )
        n = len(judged)
        return cls(count["reached"] / n, count["abstained"] / n, count["elsewhere"] / n, n)


def lacking(registry: Registry, tasks: Collection[str]) -> Registry:
    """The registry before these tasks were added."""
    found = registry.model_dump()
    found["tasks"] = {key: task for key, task in found["tasks"].items() if key not in tasks}
    return Registry.model_validate(found)


def told(registry: Registry, tasks: Collection[str]) -> Registry:
    """The registry with these tasks as they are added: a sentence of description, no examples, no probe."""
    found = registry.model_dump()
    for key in tasks:
        found["tasks"][key] |= {"examples": [], "probe": None}
    return Registry.model_validate(found)


async def serving(folder: Path, registry: Registry, like: GatingPipeline, encoder: Encoder) -> GatingPipeline:
    """Gating as it is served, but with the weights of a folder.

    Args:
        folder: holds all of gating's weights.
        registry: to serve.
        like: whose settings and identification of languages it has.
        encoder: that the weights were made for, or one that remembers.
    """
    pipeline = GatingPipeline(replace(like.config, model_dir=folder), encoder, like.language)
    await pipeline.use_registry(registry)
    return pipeline

"""The domain head: which of the registry's domains a request is of, or none of these."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moe_router.gating.heads import MixtureHead
from moe_router.gating.weights import Floats, Weights
from moe_router.registry import Registry

WEIGHTS = "domain"
"""Name of the weight files."""


def domain_head(registry: Registry, weights: Weights, task_prototypes: Mapping[str, Floats]) -> MixtureHead:
    """The head over the registry's domains; a domain's phrasings are those of its tasks."""
    grouped: dict[str, list[Floats]] = {}
    for task_key, rows in task_prototypes.items():
        grouped.setdefault(task_key.split("/")[0], []).append(rows)
    prototypes = {domain: np.concatenate(parts) for domain, parts in grouped.items()}
    return MixtureHead(weights, registry.domains, prototypes)

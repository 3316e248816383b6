"""A version of the router's weights as one blob, to be kept in a database.

The blob is safetensors with the arrays of both parts, `task.…` and `qnetwork.…`; the description is
JSON with one object for each part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from moe_router.errors import ModelAssetError
from moe_router.gating import domain, qnetwork, task_router, wording
from moe_router.gating.weights import Weights

PARTS = (task_router.WEIGHTS, qnetwork.WEIGHTS)
PRIOR_SKILLS = "prior_skills"
"""Where the Q-network's description keeps what was known of skills before feedback, beside `skills`."""
SHIPPED = "shipped"
"""Where a version's description keeps the digest of the shipped weights that it was learned beside."""
MAX_BYTES = 64 * 2**20
"""A router's weights are far below 1 MiB; what is larger is none."""


@dataclass(frozen=True, slots=True)
class RouterWeights:
    """What the router has learned: the task head and the Q-network."""

    tasks: Weights
    q_weights: Weights


def shipped_digest(folder: Path) -> str:
    """Tells apart the weights that a version was learned beside: task and domain head, Q-network, wording.

    Raises:
        OSError: a file that is there cannot be read.
    """
    digest = hashlib.sha256()
    for name in (*PARTS, domain.WEIGHTS, wording.WEIGHTS):
        for path in (folder / f"{name}.json", folder / f"{name}.safetensors"):
            digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return digest.hexdigest()


def learned_beside(meta: Mapping[str, Any], shipped: str) -> bool:
    """Whether a version was learned beside these shipped weights; one that does not say so counts as that.

    Args:
        meta: the version's description.
        shipped: their digest.
    """
    return bool(meta.get(SHIPPED, shipped) == shipped)


def pack(weights: RouterWeights, shipped: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """The blob and its description.

    Args:
        weights: of the version.
        shipped: the digest of the shipped weights that it was learned beside, where that is known.
    """
    parts = dict(zip(PARTS, (weights.tasks, weights.q_weights), strict=True))
    arrays = {
        f"{part}.{name}": np.ascontiguousarray(array, np.float32)
        for part, own in parts.items()
        for name, array in own.arrays.items()
    }
    described: dict[str, Any] = {part: dict(own.meta) for part, own in parts.items()}
    return save(arrays), described | ({SHIPPED: shipped} if shipped is not None else {})


def unpack(blob: bytes, meta: Mapping[str, Any]) -> RouterWeights:
    """The weights of a blob; whether they fit an encoder is judged where they are used.

    Raises:
        ModelAssetError: they cannot be read.
    """
    if len(blob) > MAX_BYTES:
        raise ModelAssetError(f"the router's version is larger than {MAX_BYTES} bytes")
    try:
        arrays = load(blob)
    except (SafetensorError, ValueError) as error:
        raise ModelAssetError(f"the router's version cannot be read: {error}") from error
    found = []
    for part in PARTS:
        described = meta.get(part)
        if not isinstance(described, dict):
            raise ModelAssetError(f"the router's version does not describe its {part}")
        prefix = f"{part}."
        own = {
            name.removeprefix(prefix): array.astype(np.float32)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        found.append(Weights(own, described))
    return RouterWeights(*found)

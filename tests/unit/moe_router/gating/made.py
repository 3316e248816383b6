"""Weights made by hand, so that what they decide is known, and registries to decide on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_router.gating.qnetwork import FEATURES, QNetwork
from moe_router.gating.weights import Floats, Weights
from moe_router.registry import Registry

HIDDEN = 16
CLASSES = ("a/x", "a/y", "b/z")
OPENS = {"generic/mood": {"a/x": "a/x", "a/y": "a/x", "b/z": "b/z"}}
NONE_AXIS, OPEN_AXIS, FREE_AXIS = 3, 4, 9


def axis(index: int) -> Floats:
    """A unit vector."""
    return np.eye(HIDDEN, dtype=np.float32)[index]


def head_weights(
    classes: Sequence[str] = CLASSES,
    opens: Mapping[str, Mapping[str, str]] = OPENS,
    *,
    sharpness: float = 20.0,
    meta: Mapping[str, Any] | None = None,
) -> Weights:
    """Class i is described by axis(i) and read from it; then come none and the open classes."""
    rows = np.stack([axis(i) for i in range(len(classes) + 1 + len(opens))]) * sharpness
    arrays = {
        "describe.weight": rows, "describe.bias": np.zeros(len(rows), np.float32),
        "read.weight": rows[: len(classes)], "read.bias": np.zeros(len(classes), np.float32),
        "centre": np.zeros(HIDDEN, np.float32),
    }  # fmt: skip
    described = {
        "classes": list(classes), "opens": {k: dict(v) for k, v in opens.items()},
        "temperature": 1.0, "read_temperature": 1.0, "match": {"scale": 20.0, "bias": -5.0, "blend": 1.0},
        "coverage_risk": [{"threshold": 0.5, "coverage": 0.9, "risk": 0.04}],
    }  # fmt: skip
    return Weights(arrays, described | dict(meta or {}))


def nearest_head(
    described: Mapping[str, Floats],
    none: Floats,
    opens: Mapping[str, tuple[Floats, Mapping[str, str]]],
    read: Mapping[str, Floats],
    meta: Mapping[str, Any],
    *,
    sharpness: float = 400.0,
) -> Weights:
    """A head that gives each vector the class of the nearest of these vectors."""
    columns = np.stack([*described.values(), none, *(vector for vector, _ in opens.values())])
    texts = np.stack([read[name] for name in described])
    arrays = {
        "describe.weight": columns * sharpness, "describe.bias": -(columns**2).sum(1) * sharpness / 2,
        "read.weight": texts * sharpness, "read.bias": -(texts**2).sum(1) * sharpness / 2,
        "centre": columns.mean(0),
    }  # fmt: skip
    own = head_weights().meta | {
        "classes": list(described), "opens": {name: dict(targets) for name, (_, targets) in opens.items()},
    }  # fmt: skip
    return Weights(arrays, own | dict(meta))


def q_weights(
    linear: Mapping[str, float] | None = None,
    products: Mapping[tuple[str, str], float] | None = None,
    *,
    hidden: int = HIDDEN,
    meta: Mapping[str, Any] | None = None,
) -> Weights:
    """A Q-network that computes a sum of features and of products of a 0-or-1 feature with another.

    Features lie in [0, 1] (but agreement), so that relu lets them pass, and
    relu(flag + feature - 1) is their product.
    """
    linear = {"task_probability": 1.0} if linear is None else linear
    products = products or {}
    width, second = len(FEATURES), len(linear) + len(products)
    w2, b2 = np.zeros((second, width), np.float32), np.zeros(second, np.float32)
    for row, name in enumerate(linear):
        w2[row, FEATURES.index(name)] = 1
    for row, pair in enumerate(products, len(linear)):
        w2[row, [FEATURES.index(name) for name in pair]] = 1
        b2[row] = -1
    # The encodings reach a row that no value is taken from: they show in the state, and change nothing.
    encoding = np.zeros((width, 2 * hidden), np.float32)
    encoding[FEATURES.index("undetermined")] = np.linspace(-1, 1, 2 * hidden)
    arrays = {
        "encoding.weight": encoding,
        "action.weight": np.eye(width, dtype=np.float32), "1.bias": np.zeros(width, np.float32),
        "2.weight": w2, "2.bias": b2,
        "3.weight": np.array([[*linear.values(), *products.values()]], np.float32),
        "3.bias": np.zeros(1, np.float32),
    }  # fmt: skip
    return Weights(arrays, {"features": list(FEATURES), **(meta or {})})


CASCADE = {("accept", "confidence"): 1.0}
"""Accepting an answer is worth its confidence; every other action costs its price."""


def q_network(
    linear: Mapping[str, float] | None = None, products: Mapping[tuple[str, str], float] | None = None
) -> QNetwork:
    return QNetwork(q_weights(linear, products), HIDDEN)


def registry(tasks: Mapping[str, Mapping[str, Any]] | Sequence[str] = CLASSES) -> Registry:
    """Tasks with one expert each, unless they say otherwise."""
    given = tasks if isinstance(tasks, Mapping) else {key: {} for key in tasks}
    own = {key: {"base_model_key": "m", "label_set": ["yes", "no"], **task} for key, task in given.items()}
    models = {"m": {"hf_name": "org/m"}, "n": {"hf_name": "org/n"}}
    return Registry.model_validate({"base_models": models, "tasks": own})

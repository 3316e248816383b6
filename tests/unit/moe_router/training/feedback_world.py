"""A small world to learn in: three tasks described along axes, and feedback made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_router.gating.domain import domain_head
from moe_router.gating.qnetwork import QNetwork
from moe_router.gating.task_router import Policy, TaskRouter
from moe_router.gating.versions import RouterWeights
from moe_router.gating.weights import Floats, Weights
from moe_router.registry import Registry
from moe_router.training.embedded import Embedded
from moe_router.training.feedback.learner import Serving
from moe_router.training.feedback.memory import Memory
from moe_router.training.feedback.replay import Replay, Step
from moe_router.training.phrasings import Phrasing
from moe_router.training.requests import Request
from tests.unit.moe_router.gating.made import CLASSES, HIDDEN, axis, head_weights, q_weights, registry

NAN = float("nan")
NOVEL = axis(12)
"""A code word that the live router knows nothing of."""


def noisy(vector: Floats, rng: np.random.Generator, scale: float = 0.08) -> Floats:
    moved = vector + scale * rng.normal(size=HIDDEN).astype(np.float32)
    return np.asarray(moved / np.linalg.norm(moved), np.float32)


def memory(rng: np.random.Generator, each: int = 40) -> Memory:
    """Requests for each task and for none, near their axes; no simulated request is needed here."""
    targets = (*CLASSES, "none")
    rows = [(noisy(axis(i), rng), name) for i, name in enumerate(targets) for _ in range(each)]
    guard = [(noisy(axis(i), rng), name) for i, name in enumerate(targets) for _ in range(each)]
    phrasings = [
        Phrasing(f"p-{i}", "f", name, "order", "en", str(i), "train") for i, name in enumerate(CLASSES)
    ]
    asked = [Request(phrasing, None, phrasing.target, "description_only") for phrasing in phrasings]
    return Memory(
        np.stack([vector for vector, _ in rows]),
        asked * 10,
        Embedded(Axes(), lambda *_: None),
        [(None, (vector, None)) for vector, _ in guard],
        tuple(name for _, name in guard),
    )


class Axes:
    """Encodes a number as its axis."""

    hidden = HIDDEN

    def encode(self, texts: Sequence[str]) -> Floats:
        return np.stack([axis(int(text)) for text in texts])


def shipped(skills: dict[str, dict[str, float]] | None = None) -> RouterWeights:
    """The likelier task is the better one; the network has the form that is trained."""
    found = q_weights(meta={"encoder": "toy", "skills": skills or {}})
    arrays = dict(found.arrays)
    width = len(arrays["1.bias"])
    for name, shape in (
        ("2.weight", (width // 2, width)),
        ("3.weight", (1, width // 2)),
        ("2.bias", (width // 2,)),
    ):
        grown = np.zeros(shape, np.float32)
        grown[tuple(slice(n) for n in arrays[name].shape)] = arrays[name]
        arrays[name] = grown
    return RouterWeights(head_weights(meta={"encoder": "toy"}, sharpness=12.0), Weights(arrays, found.meta))


def serving(
    live: RouterWeights | None = None, own: Registry | None = None, policy: Policy | None = None
) -> Serving:
    found = own or registry()
    first = shipped()

    def make(weights: RouterWeights) -> TaskRouter:
        network = QNetwork(weights.q_weights, HIDDEN)
        skills = weights.q_weights.meta.get("skills", {})
        return TaskRouter(found, weights.tasks, network, {}, skills=skills, policy=policy or Policy())

    domains = domain_head(found, head_weights(["a", "b"], {}), {})
    return Serving(live or first, first, domains, None, make)


def row(**changed: Any) -> dict[str, Any]:
    """A request that went to a/x, answered `yes` by its expert."""
    made: dict[str, Any] = {
        "caller": "c", "judged_at": 0.0, "description": axis(0), "text": np.zeros(HIDDEN, np.float32),
        "task": "a/x", "steps": (Step("expert:m", "yes", 0.8, 0.6, 1.0, accepted=True),),
        "propensity": 1.0, "fault": None, "correct_task": None, "correct_label": None, "score": NAN,
        "task_fixed": False, "via": "auto",
    }  # fmt: skip
    return made | changed


def replay(rows: Sequence[dict[str, Any]]) -> Replay:
    count = len(rows)
    ones = np.ones(count, np.float32)

    def column(name: str) -> tuple[Any, ...]:
        return tuple(r[name] for r in rows)

    def vectors(name: str) -> Floats:
        return np.array([r[name] for r in rows], np.float32).reshape(count, HIDDEN)

    return Replay(
        request_id=tuple(f"r-{i}" for i in range(count)), caller=column("caller"),
        decided_at=np.array(column("judged_at"), float), judged_at=np.array(column("judged_at"), float),
        description=vectors("description"), text=vectors("text"), language=("en",) * count,
        language_probability=ones, domains=("a", "b"), domain_probability=np.zeros((count, 2), np.float32),
        tasks=CLASSES, task_probability=np.zeros((count, 3), np.float32), none_probability=ones * 0,
        task=column("task"), task_fixed=np.array(column("task_fixed"), np.bool_), via=column("via"),
        action=tuple(r["steps"][0].action if r["steps"] else None for r in rows),
        propensity=np.array(column("propensity"), np.float32), steps=column("steps"),
        fault=column("fault"), router_version=(None,) * count, correct_task=column("correct_task"),
        correct_label=column("correct_label"), score=np.array(column("score"), np.float32),
    )  # fmt: skip

"""Stand-ins of the gating types, used only until moe_router.gating.pipeline can be imported."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Decision:
    language: str
    language_probability: float
    domain: Any
    domain_probabilities: dict[str, float]
    task: Any
    task_probabilities: dict[str, float]
    confidence: float
    abstained: Any
    steps: list[Any]
    timings: Any
    encoder_passes: int = 0


@dataclass(frozen=True)
class Action:
    kind: str
    expert: Any = None


@dataclass
class Observation:
    action: Any
    confidence: float
    label: Any = None


@dataclass
class ProbeAnswer:
    label: str
    confidence: float
    probabilities: dict[str, float] = field(default_factory=dict)


def install() -> None:
    try:
        import moe_router.gating.pipeline  # noqa: F401
    except ImportError:
        module = types.ModuleType("moe_router.gating.pipeline")
        for item in (Decision, Action, Observation, ProbeAnswer):
            setattr(module, item.__name__, item)
        sys.modules["moe_router.gating.pipeline"] = module

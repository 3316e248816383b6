"""What gating found out about one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from moe_router.contracts import Abstention, RouteStep, Timings
from moe_router.gating.probe import ProbeAnswer
from moe_router.gating.task_router import State, TaskRouter, Via
from moe_router.gating.weights import Floats


@dataclass(frozen=True, slots=True)
class Decision:
    """A gating decision; `router` is the one that made it, also after a reload of the registry."""

    language: str
    language_probability: float
    domain: str | None
    domain_probabilities: dict[str, float]
    task: str | None
    task_probabilities: dict[str, float]
    confidence: float
    """the calibrated probability that the best task is what is asked, also where gating abstains"""
    abstained: Abstention | None
    steps: list[RouteStep]
    timings: Timings
    encoder_passes: int
    """1, or 0 where nothing had to be encoded"""
    via: Via
    router: TaskRouter = field(repr=False)
    state: State = field(repr=False)
    probe: ProbeAnswer | None = field(repr=False)
    """the probe's answer, where the task has one and the caller allows it"""
    encoder: str | None = None
    """identity of the encoder that made the vectors"""
    description_vector: Floats | None = field(default=None, repr=False)
    """(hidden,); None where nothing was encoded"""
    text_vector: Floats | None = field(default=None, repr=False)
    """(hidden,); None where the description decided alone"""
    router_version: int | None = None
    """number of the router's weights; None: those that the package ships"""

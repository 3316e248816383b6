"""What the services need of gating and of the experts; two classes stand behind each use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moe_router.contracts import ExpertAnswer, WorkerInfo
from moe_router.errors import DeadlineError
from moe_router.gating.batching import EncoderCounts
from moe_router.gating.decision import Decision
from moe_router.gating.task_router import Action, Observation, Via
from moe_router.gating.versions import RouterWeights
from moe_router.mapping import WorkerMapping
from moe_router.members import ExpertMembers, StepMembers
from moe_router.registry import Expert, Registry, TaskSpec

TIME_IS_UP = "The time for the whole request is up."


class AttemptTimeoutError(DeadlineError):
    """A worker's time is up, and not yet that of the whole request: another expert may still answer."""


@dataclass(slots=True)
class Call:
    """What goes with one call of an expert, and what it cost."""

    request_id: str
    deadline: float
    """Seconds of time.monotonic()."""
    trace: Mapping[str, str] = field(default_factory=dict)
    caller: str = ""
    """who asks: `address:` and the address, or `key:` and the key's id"""
    worker_ms: float = 0.0
    """Milliseconds spent waiting for workers, failed attempts included."""
    alone: bool = False
    """Whether somebody waits for this very answer: one of a batch or a job is not worth a hedge."""
    bundled: bool = False
    """Whether it may share a request to a worker with others that are answered together with it."""
    hedges: tuple[StepMembers, ...] = ()
    """Which workers were asked beside a slow one, each after how many milliseconds."""


class Gating(Protocol):
    """A `GatingPipeline`."""

    async def decide(
        self,
        text: str,
        description: str | None,
        *,
        language: str | None,
        task: str | None,
        via: Via,
        served: Callable[[str], bool],
    ) -> Decision:
        """Language, domain and task of a request."""

    def next_action(
        self,
        decision: Decision,
        observations: Sequence[Observation],
        *,
        reachable: Callable[[Expert], bool],
    ) -> Action:
        """What to do next, after what was observed."""

    def candidates(self, decision: Decision, *, reachable: Callable[[Expert], bool]) -> list[Expert]:
        """The task's experts, best first, unreachable ones last."""

    shipped: RouterWeights
    """the router's weights that came with the models"""
    shipped_digest: str
    """tells them from others"""

    @property
    def left_out(self) -> frozenset[str]:
        """Tasks whose probe cannot be used."""

    async def use_router(self, weights: RouterWeights, version: int | None) -> None:
        """Takes other weights of the router, of this number; ModelAssetError where they do not fit."""

    def counts(self) -> EncoderCounts:
        """What the encoder has done, for metrics."""

    async def use_registry(self, registry: Registry) -> None:
        """Takes another registry; decisions under way finish on the old one."""

    async def aclose(self) -> None:
        """Lets the models go."""


class Experts(Protocol):
    """Calls experts, wherever they run."""

    def served(self, model_key: str) -> bool:
        """Whether a worker holds the model, reachable or not."""

    def reachable(self, expert: Expert) -> bool:
        """Whether a call can be tried now."""

    def on_trial(self, expert: Expert) -> bool:
        """Whether that is being found out, so that it is worth waiting for where nothing else can answer."""

    def candidates(self, expert: Expert) -> list[str]:
        """Ids of the workers that would be asked, best first."""

    async def classify(
        self, expert: Expert, task: TaskSpec, request: ExpertMembers, call: Call
    ) -> tuple[str, ExpertAnswer]:
        """The id of the worker that answered, and its answer, checked against the task.

        `task` is of the registry that the request began with; there may be another by now.

        Raises:
            MoleError: NoWorkerError, OverloadedError, WorkerAnswerError, AttemptTimeoutError,
                DeadlineError, or a RequestError where the worker finds the caller's request wrong.
        """

    def workers(self) -> list[WorkerInfo]:
        """Every worker and how it is."""

    def waiting(self) -> dict[str, int]:
        """Requests that wait for a worker to have room, by model key."""

    async def use(self, registry: Registry, mapping: WorkerMapping) -> None:
        """Takes other files; calls in flight finish on the old ones."""

    async def start(self) -> None:
        """Begins what runs in the background."""

    async def aclose(self) -> None:
        """Ends it."""

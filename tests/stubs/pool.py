"""An expert pool stand-in for tests: an even distribution, or the text as the label where it is one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from moe_router.contracts import Entity, ExpertAnswer, ExpertRequest
from moe_router.errors import ModelAssetError, OverloadedError, UnknownTaskError
from moe_router.registry import Expert, Registry
from moe_router.tally import SizeTally

WAIT = "wait for the event"
FULL = "the queue is full"
BREAK = "break"
UNSERVABLE = "social/unservable"
BREAKING = "social/breaking"


class StubPool:
    def __init__(self, registry: Registry, model_key: str, worker_id: str = "worker-0") -> None:
        self.registry = registry
        self.model_key = model_key
        self.worker_id = worker_id
        self.gate = asyncio.Event()
        self.tally = SizeTally()
        self.cut_texts = {"a/long": 2}
        self.may_load = threading.Event()
        self.may_load.set()
        self.warmed = False
        self.loaded_in: threading.Thread | None = None
        self.depth = 0
        self.cancelled = 0
        self.broken = False
        self.closed = False
        self.failed: dict[str, str] = {}
        self.seen: list[ExpertRequest] = []
        self.deadlines: list[float | None] = []
        self.callers: list[str] = []

    def preload(self, progress: Callable[[str, float], None]) -> None:
        self.loaded_in = threading.current_thread()
        progress("reading weights", 0.5)
        self.may_load.wait(10)
        if self.broken:
            raise RuntimeError("the device is lost")

    def warm_up(self) -> None:
        self.warmed = True

    async def reload(self, registry: Registry) -> None:
        if UNSERVABLE in registry.tasks:
            raise ModelAssetError("it cannot be served")
        if BREAKING in registry.tasks:
            raise RuntimeError("the device is lost")
        self.registry = registry

    def experts(self) -> list[Expert]:
        every = (e for key in self.registry.tasks for e in self.registry.all_experts(key))
        return [e for e in every if e.base_model_key == self.model_key]

    def failures(self) -> dict[str, str]:
        return self.failed

    def may_answer(self, key: str) -> bool:
        return key not in self.failed

    def find(self, task_key: str, language: str, adapter_name: str | None) -> Expert:
        for expert in self.experts():
            if expert.task_key == task_key and adapter_name in (None, expert.adapter_name):
                return expert
        raise UnknownTaskError(task_key, tuple(e.task_key for e in self.experts()))

    async def classify(
        self, expert: Expert, request: ExpertRequest, *, deadline: float | None = None, caller: str = ""
    ) -> ExpertAnswer:
        self.seen.append(request)
        self.deadlines.append(deadline)
        self.callers.append(caller)
        if request.text == FULL:
            raise OverloadedError("The queue is full.")
        if request.text == BREAK:
            raise RuntimeError("the engine broke")
        self.depth += 1
        self.tally.note(1)
        try:
            if request.text == WAIT:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.depth -= 1
        return self._answer(expert, request)

    def _answer(self, expert: Expert, request: ExpertRequest) -> ExpertAnswer:
        task = self.registry.task(expert.task_key)
        common = {
            "confidence": 0.5,
            "worker_id": self.worker_id,
            "model_key": expert.base_model_key,
            "adapter_name": expert.adapter_name,
            "processing_time_ms": 1.0,
        }
        if task.kind == "extraction":
            first = request.text.split()[0]
            start = request.text.index(first)
            entity = Entity(
                type=task.label_set[0], start=start, end=start + len(first), value=first, confidence=0.5
            )
            return ExpertAnswer(result="entities", entities=[entity], **common)
        label = request.text if request.text in task.label_set else task.label_set[0]
        share = 1 / len(task.label_set)
        return ExpertAnswer(result=label, probabilities=dict.fromkeys(task.label_set, share), **common)

    def batches(self) -> SizeTally:
        return self.tally

    def cut(self) -> dict[str, int]:
        return dict(self.cut_texts)

    def queue_depth(self) -> int:
        return self.depth

    async def aclose(self) -> None:
        self.gate.set()
        self.closed = True

"""The answers of `/v1/classify`, in the form that the client reads."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.facade.asking import model_of
from app.facade.schemas import Classified, ClassifiedList, InfinityLabel, InfinityList
from app.services.runtime import Runtime
from moe_router.contracts import ClassifyAnswer


def to_vllm(
    found: Sequence[ClassifyAnswer], asked_model: str, request_id: str, runtime: Runtime
) -> ClassifiedList:
    """One entry an input: the label, and the probabilities in the order of the task's labels."""
    return ClassifiedList(
        id=f"classify-{request_id}",
        created=int(time.time()),
        model=_model(found, asked_model),
        data=[_classified(index, said, runtime) for index, said in enumerate(found)],
    )


def to_infinity(found: Sequence[ClassifyAnswer], asked_model: str, request_id: str) -> InfinityList:
    """One list an input: the labels with their probabilities, from the likeliest on."""
    return InfinityList(
        id=f"classify-{request_id}",
        created=int(time.time()),
        model=_model(found, asked_model),
        data=[_by_probability(said) for said in found],
        mole=list(found),
    )


def _model(found: Sequence[ClassifyAnswer], asked_model: str) -> str:
    return asked_model if len({said.task for said in found}) > 1 else model_of(found[0], asked_model)


def _by_probability(found: ClassifyAnswer) -> list[InfinityLabel]:
    spread = (found.probabilities or {}).items()
    return [InfinityLabel(score=p, label=label) for label, p in sorted(spread, key=lambda pair: -pair[1])]


def _classified(index: int, found: ClassifyAnswer, runtime: Runtime) -> Classified:
    """One entry; a label set that the registry has changed in between is in the answer's own order."""
    spread = found.probabilities or {}
    task = runtime.registry.tasks.get(found.task or "")
    order = [label for label in (task.label_set if task is not None else ()) if label in spread] or list(
        spread
    )
    return Classified(
        index=index,
        label=found.result,
        probs=[spread[label] for label in order],
        num_classes=len(order),
        mole=found,
    )

"""What can be asked for."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api import examples, openapi
from app.api.messages import answer, runtime_of
from moe_router.contracts import TaskInfo, TasksAnswer

router = APIRouter(prefix="/api/v1", tags=["fleet"])


@router.get(
    "/tasks",
    summary="All tasks",
    responses=openapi.answers(TasksAnswer, openapi.READ_STATUSES, examples.TASKS),
)
async def tasks(request: Request) -> Response:
    """The tasks of the registry; `available` says whether a worker of the mapping serves it, or a probe."""
    runtime = runtime_of(request)
    registry, experts, left_out = runtime.registry, runtime.experts, runtime.left_out
    found = []
    for key, task in registry.tasks.items():
        languages = registry.languages_of(key)
        offered = registry.all_experts(key)
        probing = task.probe is not None and key not in left_out
        found.append(
            TaskInfo(
                task_key=key,
                domain=key.partition("/")[0],
                description=task.description,
                kind=task.kind,
                languages=None if languages is None else list(languages),
                labels=list(task.label_set),
                experts=[expert.name for expert in offered],
                available=probing or any(experts.served(e.base_model_key) for e in offered),
            )
        )
    return answer(TasksAnswer(tasks=found))

"""From a model's name and a text to an answer, by the code of `/api/v1/classify`."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from app.api.classify import ask, expert_name
from app.asgi.exchange import Exchange
from app.facade.errors import UnknownModelError
from app.services.runtime import Runtime
from moe_router.contracts import ClassifyAnswer, ClassifyOptions, ClassifyRequest
from moe_router.errors import RequestError

AUTO: Final = "mole/auto"
OWN: Final = "mole/"
UNSPECIFIED: Final = "default/not-specified"
"""What Infinity's clients send where no model is named."""


def task_of(model: str, runtime: Runtime) -> str | None:
    """The task that a model's name fixes; None where MoLE finds it.

    Raises:
        UnknownModelError: there is no such model.
    """
    name = model.removeprefix(OWN)
    if name == AUTO.removeprefix(OWN) or model == UNSPECIFIED:
        return None
    if name not in runtime.registry.tasks:
        raise UnknownModelError(f"There is no model {model!r}; `/v1/models` lists them.")
    return name


async def answered(
    runtime: Runtime,
    exchange: Exchange,
    text: str,
    description: str | None,
    task: str | None,
    request_id: str,
    *,
    alone: bool = False,
) -> ClassifyAnswer:
    """The whole answer, with the label's distribution; `alone` where the exchange asks nothing else.

    Raises:
        RequestError: there is no text.
        MoleError: as `/api/v1/classify`.
    """
    if not text:
        raise RequestError("There is no text to classify.")
    options = ClassifyOptions(task=task, return_probabilities=True)
    asked = ClassifyRequest(text=text, description=description, options=options)
    found, expert = await ask(runtime, runtime.classification(), asked, request_id, exchange, alone=alone)
    exchange.expert = expert_name(found, expert)
    return ClassifyAnswer(**found)


def model_of(found: ClassifyAnswer, asked: str) -> str:
    """The model that answered."""
    return asked if found.task is None else OWN + found.task


def loaded_at(runtime: Runtime) -> int:
    """Since when the models are what they are, in seconds of the epoch."""
    return int(datetime.fromisoformat(runtime.mapping_info().loaded_at).timestamp())

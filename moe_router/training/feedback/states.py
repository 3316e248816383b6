"""The router's states at judged decisions and at composed requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moe_router.gating.heads import Distribution, MixtureHead
from moe_router.gating.task_router import State, TaskRouter
from moe_router.gating.weights import Floats
from moe_router.gating.wording import Wording, joined
from moe_router.training.feedback.replay import Replay

Vectors = tuple[Floats | None, Floats | None]
"""Of a description and of a text."""
Composed = tuple[str | None, Vectors]
"""A description's text, and the vectors."""
LANGUAGE = "en"
"""A composed request's, and how sure it is: the task that is chosen hardly depends on them."""
LANGUAGE_PROBABILITY = 0.95


def vectors_at(replay: Replay, row: int) -> Vectors:
    """The vectors of a row; None where nothing was encoded."""
    described, text = replay.description[row], replay.text[row]
    return described if described.any() else None, text if text.any() else None


def state_at(router: TaskRouter, domains: MixtureHead, replay: Replay, row: int) -> State:
    """What this router would have known of a judged request before any expert was asked.

    But for the words of the description, which no database holds: where they tipped the choice, another
    task may come out than the one that was chosen, and the row then says nothing about paths.
    """
    described, text = vectors_at(replay, row)
    language = replay.language[row], float(replay.language_probability[row])
    task = replay.task[row]
    if replay.task_fixed[row] and task is not None:
        named = Distribution((task,), np.ones(1, np.float32), 0.0, 0.0)
        domain = Distribution((task.split("/")[0],), np.ones(1, np.float32), 0.0, 0.0)
        return State(router.qnetwork.state(None, text), named, domain, *language)
    return State(
        router.qnetwork.state(described, text),
        router.head(described, text),
        domains(described, text),
        *language,
    )


def states_of(
    router: TaskRouter, domains: MixtureHead, words: Wording | None, requests: Sequence[Composed]
) -> Iterator[State]:
    """The states of composed requests, as they would be served."""
    for description, pair in requests:
        encodings = router.qnetwork.state(*pair)
        tasks = joined(words, description, router.head(*pair))
        yield State(encodings, tasks, domains(*pair), LANGUAGE, LANGUAGE_PROBABILITY)

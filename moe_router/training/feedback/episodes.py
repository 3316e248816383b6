"""Episodes for the Q-network from judged decisions.

Only arms whose outcome is known are offered: those that were asked and answered. A row that tells
the right task but nothing about an answer to it gets drawn arms, as a simulated request does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_router.contracts import UNDETERMINED
from moe_router.gating.heads import MixtureHead
from moe_router.gating.qnetwork import PRIOR_SKILL
from moe_router.gating.task_router import PROBE as PROBE_NAME
from moe_router.gating.task_router import TaskRouter
from moe_router.training.arms import ARMS, drawn_arms
from moe_router.training.episodes import PROBE, Episodes
from moe_router.training.feedback.evidence import RIGHT, Outcome
from moe_router.training.feedback.replay import Replay
from moe_router.training.feedback.states import state_at


def feedback_episodes(
    replay: Replay,
    asked: Sequence[str | None],
    outcomes: Sequence[Outcome],
    router: TaskRouter,
    domains: MixtureHead,
    rng: np.random.Generator,
) -> tuple[Episodes, list[int]] | None:
    """One episode for each row that tells something, and the rows.

    Args:
        replay: judged decisions.
        asked: the task of each row, None where it is not known.
        outcomes: answers whose rightness is known.
        router: whose states and skills the episodes show.
        domains: the domain head.
        rng: draws the arms of which nothing is known.

    Returns:
        None where no row tells anything.
    """
    known: dict[int, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        known[one.row].append(one)
    names = tuple(router.registry.tasks)
    target = [_target(replay, row, asked[row], known.get(row), names) for row in range(len(replay))]
    rows = [row for row, task in enumerate(target) if task is not None]
    if not rows:
        return None
    arms = drawn_arms(len(rows), rng)
    for place, row in enumerate(rows):
        if known.get(row):
            _set_arms(arms, place, known[row], router)
    states = _states(replay, rows, router, domains, names)
    aim = np.array([target[row] for row in rows], np.intp)
    return Episodes(**states, **arms, target=aim), rows


def _target(
    replay: Replay, row: int, asked: str | None, known: list[Outcome] | None, names: tuple[str, ...]
) -> int | None:
    # Of a fixed task the state says that it is certain: another right one would teach to doubt the caller.
    if replay.task_fixed[row] and asked not in (None, replay.task[row]):
        return None
    # A wrong answer leaves the task open; that its experts were right to be asked is the likeliest.
    task = asked if asked is not None else (known[0].task if known else None)
    return names.index(task) if task in names else None


def _set_arms(arms: dict[str, Any], place: int, known: Sequence[Outcome], router: TaskRouter) -> None:
    """Puts the known outcomes in place of the drawn ones; of the experts the first ones asked."""
    arms["drawn"][place] = arms["offered"][place] = False
    labels = list(dict.fromkeys(one.step.label for one in known))
    columns = iter(column for column in range(ARMS) if column != PROBE)
    for one in known:
        column = PROBE if one.name == PROBE_NAME else next(columns, None)
        if column is None:
            continue
        arms["offered"][place, column] = True
        arms["price"][place, column] = one.step.cost
        arms["skill"][place, column] = router.skills.get(one.task, {}).get(one.name, PRIOR_SKILL)
        arms["confidence"][place, column] = one.step.confidence
        arms["margin"][place, column] = one.step.margin
        arms["label"][place, column] = labels.index(one.step.label)
        arms["correct"][place, column] = one.quality >= RIGHT
        arms["pooled"][place, column] = one.step.pooled


def _states(
    replay: Replay, rows: Sequence[int], router: TaskRouter, domains: MixtureHead, names: tuple[str, ...]
) -> dict[str, Any]:
    states = [state_at(router, domains, replay, row) for row in rows]
    domain_of = [name.split("/")[0] for name in names]
    fixed = replay.task_fixed[rows][:, None]
    return {
        "description": np.where(fixed, 0, replay.description[rows]).astype(np.float32),
        "text": replay.text[rows],
        "task_probability": np.array([[s.tasks.of(n) for n in names] for s in states], np.float32),
        "none_probability": np.array([s.tasks.none for s in states], np.float32),
        "domain_probability": np.array([[s.domains.of(d) for d in domain_of] for s in states], np.float32),
        "language_probability": replay.language_probability[rows],
        "undetermined": np.array([replay.language[row] == UNDETERMINED for row in rows], np.bool_),
    }

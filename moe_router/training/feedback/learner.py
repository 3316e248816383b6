"""From feedback to a candidate for the router's weights, and whether it may go live.

What feedback proves (`evidence`) is split: most of it teaches, the rest judges. It teaches how good
experts are (`skills`), which task is asked for (`head_update`), and what actions are worth
(`qlearning`, on `feedback_episodes` among simulated ones). `judging` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.abstention import threshold_for
from moe_router.gating.heads import MixtureHead
from moe_router.gating.task_router import TaskRouter
from moe_router.gating.versions import PRIOR_SKILLS, RouterWeights
from moe_router.gating.weights import Floats, Weights
from moe_router.gating.wording import Wording
from moe_router.training import qlearning
from moe_router.training.episodes import joined
from moe_router.training.feedback.episodes import feedback_episodes
from moe_router.training.feedback.evidence import Outcome, asked_tasks, caller_weights, outcomes
from moe_router.training.feedback.head_update import HeadRows, HeadRun, update_head
from moe_router.training.feedback.held_out import Run, hold_out
from moe_router.training.feedback.judging import Bars, Verdict, guarded, judge
from moe_router.training.feedback.memory import Memory
from moe_router.training.feedback.replay import Replay
from moe_router.training.feedback.skills import posterior_skills, prior_skills
from moe_router.training.feedback.states import vectors_at
from moe_router.training.feedback.thresholds import carried
from moe_router.training.simulation import simulate

HELD_OUT_BY = "held_out_by"
"""Where a version's metrics keep the way by which its run held out."""
FEEDBACK_SHARE = 0.25
"""Feedback is at most this share of the Q-network's episodes."""
REPEATS = 4
"""A row is repeated so often at most, to reach that share."""


@dataclass(frozen=True, slots=True)
class LearnRun:
    """Hyperparameters of a run."""

    head: HeadRun = field(default_factory=HeadRun)
    bars: Bars = field(default_factory=Bars)
    q_updates: int = 300
    q_learning_rate: float = 2e-4
    q_epsilon: float = 0.2
    seed: int = 0
    """the same in every run, so that what was rejected is not drawn anew until chance lets it pass"""


@dataclass(frozen=True, slots=True)
class Serving:
    """The router as it serves, and how to make one like it with other weights."""

    live: RouterWeights
    shipped: RouterWeights
    domains: MixtureHead
    words: Wording | None
    make: Callable[[RouterWeights], TaskRouter]
    target_risk: float = 0.05
    """share of answered requests that may go to a wrong task"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights that were learned, and what the judges say."""

    weights: RouterWeights
    verdict: Verdict
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Lessons:
    """Rows that prove something, and what."""

    replay: Replay
    asked: Sequence[str | None]
    outcomes: list[Outcome]

    @classmethod
    def of(cls, replay: Replay, known: Sequence[str]) -> _Lessons:
        asked = [task if task in known else None for task in asked_tasks(replay)]
        return cls(replay, asked, [o for o in outcomes(replay) if o.task in known])

    def rows(self) -> list[int]:
        proved = {o.row for o in self.outcomes}
        return [row for row in range(len(self.replay)) if self.asked[row] is not None or row in proved]


def learn(
    replay: Replay, serving: Serving, memory: Memory, run: LearnRun, runs: Sequence[Run] = ()
) -> Candidate | None:
    """Trains and judges a candidate; the same for the same input.

    Args:
        replay: judged decisions, newest first, of each caller as many as may count.
        serving: the router in force.
        memory: what must not be forgotten.
        run: the hyperparameters.
        runs: those before, so that what judges has taught none of them.

    Returns:
        None where the feedback proves nothing that can be learned.
    """
    live = serving.make(serving.live)
    known = tuple(live.registry.tasks)
    lessons = _Lessons.of(replay, known)
    # What proves nothing goes before all else: so a dead expert's rows change nothing at all.
    replay = replay.take(lessons.rows())
    split = hold_out(replay, runs)
    if not split.taught:
        return None
    lessons = _Lessons.of(replay.take(split.taught), known)
    weights = _train(lessons, serving, live, memory, run)
    router = serving.make(weights)
    own, before, shipped = (
        guarded(r, serving.domains, serving.words, memory, run.seed + 1)
        for r in (router, live, serving.make(serving.shipped))
    )
    first = serving.shipped.tasks.meta
    weights = _with_meta(weights, coverage_risk=carried(first["coverage_risk"], shipped, own))
    thresholds = (
        threshold_for(weights.tasks.meta, serving.target_risk),
        threshold_for(first, serving.target_risk),
    )
    verdict = judge(
        own, (before, shipped), thresholds, (router, live), serving.domains, replay.take(split.held), run.bars
    )
    counted = {
        "rows": len(split.taught),
        "callers": len(set(lessons.replay.caller)),
        "tasks_told": sum(task is not None for task in lessons.asked),
        "answers_judged": len(lessons.outcomes),
    }
    return Candidate(weights, verdict, {"taught": counted, HELD_OUT_BY: split.way, **verdict.metrics})


def _train(
    lessons: _Lessons, serving: Serving, live: TaskRouter, memory: Memory, run: LearnRun
) -> RouterWeights:
    prior = prior_skills(serving.live.q_weights.meta, live.skills)
    skills = posterior_skills(prior, lessons.outcomes, lessons.replay.caller)
    meta = dict(serving.live.q_weights.meta) | {"skills": skills, PRIOR_SKILLS: prior}
    rows = head_rows(live.head, lessons.replay, lessons.asked)
    tasks = update_head(serving.live.tasks, live.head, rows, memory.description, run.head)
    started = RouterWeights(tasks, Weights(serving.live.q_weights.arrays, meta))
    return RouterWeights(tasks, _train_values(lessons, serving, started, memory, run))


def head_rows(head: MixtureHead, replay: Replay, asked: Sequence[str | None]) -> HeadRows:
    """What the feedback tells of descriptions; rows without one, or with a fixed task, tell nothing."""
    rows, shares = [], []
    for row, task in enumerate(asked):
        described, text = vectors_at(replay, row)
        if task is not None and described is not None and not replay.task_fixed[row]:
            rows.append(row)
            shares.append(head.shares(text, task))
    weight = caller_weights([replay.caller[row] for row in rows])
    none = np.zeros((0, len(head.columns)), np.float32)
    return HeadRows(replay.description[rows], np.stack(shares) if shares else none, weight)


def _train_values(
    lessons: _Lessons, serving: Serving, started: RouterWeights, memory: Memory, run: LearnRun
) -> Weights:
    router = serving.make(started)
    rng = np.random.default_rng(run.seed)
    made = feedback_episodes(lessons.replay, lessons.asked, lessons.outcomes, router, serving.domains, rng)
    if made is None:
        return started.q_weights
    own, rows = made
    heads = (serving.domains, router.head)
    anchor = simulate(memory.requests, router.registry, heads, serving.words, memory.embed, run.seed)
    weight = caller_weights([lessons.replay.caller[row] for row in rows])
    most = FEEDBACK_SHARE / (1 - FEEDBACK_SHARE) * len(anchor.target)
    drawn = rng.choice(len(rows), size=int(min(most, REPEATS * len(rows))), p=_share(weight))
    episodes = joined(anchor, own.take(drawn))
    dqn = qlearning.DqnRun(
        updates=run.q_updates, learning_rate=run.q_learning_rate, epsilon_start=run.q_epsilon,
        width=len(started.q_weights.arrays["1.bias"]), seed=run.seed,
    )  # fmt: skip
    return qlearning.train(episodes, dqn, started.q_weights.meta, start=started.q_weights.arrays)


def _share(weight: Floats) -> NDArray[np.float64]:
    exact = weight.astype(np.float64)
    return np.asarray(exact / exact.sum(), np.float64)


def _with_meta(weights: RouterWeights, **changed: Any) -> RouterWeights:
    tasks = Weights(weights.tasks.arrays, dict(weights.tasks.meta) | changed)
    return RouterWeights(tasks, weights.q_weights)

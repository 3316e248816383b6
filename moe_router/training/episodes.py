"""Episodes for the Q-network: requests with what each of a task's arms would answer.

An *arm* is who can be asked: column 0 is the probe, the others are LLM experts. Every task of an
episode offers the same arms; their answers are those on the task that was asked for, and any other
task's answer is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.gating.qnetwork import FEATURES, MAX_PRICE
from moe_router.gating.weights import Floats

PROBE = 0
"""The probe's column."""
Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Episodes:
    """n requests, k tasks, m arms."""

    description: Floats
    """(n, hidden); zero rows where there is none"""
    text: Floats
    """(n, hidden); zero rows where it was not encoded"""
    task_probability: Floats
    """(n, k)"""
    none_probability: Floats
    """(n,)"""
    domain_probability: Floats
    """(n, k): of the domain of each task"""
    language_probability: Floats
    """(n,)"""
    undetermined: Bools
    """(n,): the text is in no language that could be told"""
    target: Ints
    """(n,): the task asked for, -1 where none fits"""
    offered: Bools
    """(n, m)"""
    price: Floats
    """(n, m): the costs, or once `priced` what asking costs in units of a right answer"""
    skill: Floats
    """(n, m)"""
    confidence: Floats
    """(n, m)"""
    margin: Floats
    """(n, m)"""
    label: Ints
    """(n, m): numbers that tell labels apart"""
    correct: Bools
    """(n, m)"""
    pooled: Bools
    """(n, m): the expert was heard together with the probe, whose own answer then says nothing more"""
    drawn: Bools
    """(n,): the arms are made up, and may be drawn anew whenever the episode is played"""

    @property
    def arms(self) -> int:
        """How many can be asked, m."""
        return int(self.offered.shape[1])

    @property
    def tasks(self) -> int:
        """How many tasks there are, k."""
        return int(self.task_probability.shape[1])

    def take(self, rows: Ints) -> Episodes:
        """These rows."""
        return Episodes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def priced(self, cost_weight: Floats | float) -> Episodes:
        """With prices in place of costs; the probe is free."""
        price = np.minimum(self.price * cost_weight, MAX_PRICE).astype(np.float32)
        price[:, PROBE] = 0.0
        return replace(self, price=price)


def joined(*parts: Episodes) -> Episodes:
    """All rows of several sets with as many arms each."""
    return Episodes(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Episodes)}
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What is known after some arms of one task were asked."""

    own: Episodes
    task: Ints
    """(n,): whose arms are asked"""
    confidence: Floats
    """(n, m), as the next three: what the arms answer for this task"""
    margin: Floats
    label: Ints
    correct: Bools
    asked: Bools
    """(n, m): whose answers have been seen"""

    @classmethod
    def after_first(cls, own: Episodes, task: Ints, arm: Ints, rng: np.random.Generator) -> Known:
        """After one arm of a task was asked."""
        right = task == own.target
        # A task that was not asked for answers with somebody else's confidence.
        source = np.where(right, np.arange(len(task)), rng.permutation(len(task)))
        asked = np.zeros(own.offered.shape, bool)
        asked[np.arange(len(task)), arm] = True
        return cls(
            own, task, own.confidence[source], own.margin[source], own.label[source],
            own.correct & right[:, None], asked,
        )  # fmt: skip

    @property
    def standing(self) -> Bools:
        """(n, m): whose answers count; the probe's does not where it is part of another."""
        found = self.asked.copy()
        found[:, PROBE] &= ~(self.asked & self.own.pooled).any(1)
        return found

    def after(self, arm: Ints | int) -> Known:
        """After this arm was asked too; -1 asks none."""
        index = np.broadcast_to(np.asarray(arm), (len(self.task),))
        asked = self.asked.copy()
        rows = np.flatnonzero(index >= 0)
        asked[rows, index[rows]] = True
        return replace(self, asked=asked)


def start_features(own: Episodes) -> Floats:
    """Phi of asking each arm of each task before anything is known: (n, k * m, features)."""
    shape = (len(own.target), own.tasks, own.arms)
    columns = _base(own.task_probability, own.domain_probability, own, shape)
    columns["probe"] = np.arange(own.arms) == PROBE
    columns["expert"] = np.arange(own.arms) != PROBE
    columns["price"] = own.price[:, None, :]
    columns["skill"] = own.skill[:, None, :]
    return _stack(columns, shape).reshape(shape[0], -1, len(FEATURES))


def ask_features(known: Known) -> Floats:
    """Phi of accepting the answer of each arm, then of asking each arm: (n, 2m, features)."""
    own, standing = known.own, known.standing
    count, arms = own.offered.shape
    shape = (count, 2, arms)
    rows = np.arange(count)
    columns = _base(own.task_probability[rows, known.task][:, None], _domain(known), own, shape)
    accept = np.array([True, False])[None, :, None]
    columns["accept"] = accept
    columns["probe"] = np.arange(arms) == PROBE
    columns["expert"] = np.arange(arms) != PROBE
    columns["price"] = np.where(accept, 0.0, own.price[:, None, :])
    columns["skill"] = own.skill[:, None, :]
    columns["confidence"] = np.where(accept, known.confidence[:, None, :], 0.0)
    columns["margin"] = np.where(accept, known.margin[:, None, :], 0.0)
    columns["agreement"] = np.where(accept, _agreement(known)[:, None, :], 0.0)
    columns["asked"] = (np.minimum(standing.sum(1), 4) / 4)[:, None, None]
    best = np.where(standing, known.confidence, -1.0).argmax(1)
    seen = standing.any(1)
    for name, values in (
        ("best_confidence", known.confidence), ("best_margin", known.margin), ("best_skill", own.skill)
    ):  # fmt: skip
        columns[name] = np.where(seen, values[rows, best], 0.0)[:, None, None]
    columns["disagreement"] = _disagreement(known)[:, None, None]
    return _stack(columns, shape).reshape(count, 2 * arms, len(FEATURES))


def followers(known: Known) -> Bools:
    """Which of the actions of `ask_features` may be taken: (n, 2m)."""
    may_ask = known.own.offered & ~known.asked
    # After an answer the probe is not offered: it was there to be asked first.
    may_ask[:, PROBE] &= ~known.asked.any(1)
    return np.concatenate([known.standing, may_ask], axis=1)


def _agreement(known: Known) -> Floats:
    """(n, m): of each standing answer with the others, from -1 to 1; 0 where it is alone."""
    same, standing = known.label[:, :, None] == known.label[:, None, :], known.standing
    others = standing[:, None, :] & ~np.eye(standing.shape[1], dtype=bool)
    count = others.sum(2)
    share = (same & others).sum(2) / np.maximum(count, 1)
    return np.where(standing & (count > 0), 2 * share - 1, 0.0).astype(np.float32)


def _disagreement(known: Known) -> Bools:
    standing = known.standing
    first = known.label[np.arange(len(known.task)), standing.argmax(1)]
    return np.asarray(((known.label != first[:, None]) & standing).any(1))


def _domain(known: Known) -> Floats:
    own = known.own
    return np.asarray(own.domain_probability[np.arange(len(known.task)), known.task][:, None], np.float32)


def _base(
    task: Floats, domain: Floats, own: Episodes, shape: tuple[int, int, int]
) -> dict[str, NDArray[Any]]:
    return {name: np.zeros((1, 1, 1)) for name in FEATURES} | {
        "task_probability": task[:, :, None],
        "none_probability": own.none_probability[:, None, None],
        "domain_probability": domain[:, :, None],
        "language_probability": own.language_probability[:, None, None],
        "undetermined": own.undetermined[:, None, None],
    }


def _stack(columns: dict[str, NDArray[Any]], shape: tuple[int, int, int]) -> Floats:
    result = np.empty((*shape, len(FEATURES)), np.float32)
    for index, name in enumerate(FEATURES):
        result[..., index] = columns[name]
    return result

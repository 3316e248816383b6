"""How good another router would have been on judged decisions, from what the serving one did.

Which task was right is known whatever was done, where callers name it, so routers are compared directly.
What an answer would have been is known only for the path that was taken: its quality, less its price,
is weighted by how much likelier the other router takes the same path (self-normalised importance
sampling, Swaminathan & Joachims, 2015):

    V = sum_i c_i w_i r_i / sum_i c_i w_i,    w_i = pi(path_i) / propensity_i

c splits the weight evenly between callers. The probability is that of the whole path: of the task,
of each one asked, and of accepting the answer that was given. Where the serving router did not
explore, V covers only the requests on which both act alike; `effective` says how many rows that is
worth. Routers are compared on the rows whose path each of them may take: else one would look better
for doing otherwise where things went wrong, of which nothing is known. Who could be reached is known
only of those who were asked; the others count as reachable.
"""

from __future__ import annotations

import numpy as np

from moe_router.gating.heads import MixtureHead
from moe_router.gating.qnetwork import MAX_PRICE
from moe_router.gating.task_router import PROBE, Action, Observation, State, TaskRouter
from moe_router.registry import Expert
from moe_router.training.feedback.comparison import Comparison, compare
from moe_router.training.feedback.evidence import caller_weights, name_of
from moe_router.training.feedback.replay import Replay
from moe_router.training.feedback.states import state_at

Routers = tuple[TaskRouter, TaskRouter]
"""The candidate, then the live one."""


def task_accuracy(routers: Routers, domains: MixtureHead, replay: Replay) -> Comparison:
    """Share of the requests for whose task each router goes, callers counting alike.

    Only where the caller names the task: a right answer tells of the task as well, but a wrong one does
    not, so that rows with answers alone would only ever praise the router that chose.
    """
    told, known = replay.correct_task, routers[0].registry.tasks
    rows = [row for row in range(len(replay)) if told[row] in known and not replay.task_fixed[row]]
    right = [
        np.array([r.choose_task(state_at(r, domains, replay, row)) == told[row] for row in rows], float)
        for r in routers
    ]
    callers = [replay.caller[row] for row in rows]
    return compare(right, [caller_weights(callers)] * 2, callers)


def path_values(routers: Routers, domains: MixtureHead, replay: Replay) -> Comparison:
    """What each router's answers would be worth, quality less price, on the rows that tell it of all."""
    quality = replay.quality()
    judged = [
        row for row in range(len(replay)) if replay.task[row] is not None and not np.isnan(quality[row])
    ]
    weight = np.array([[_path_probability(r, domains, replay, row) for row in judged] for r in routers])
    common = np.flatnonzero((weight > 0).all(axis=0))
    rows = [judged[place] for place in common]
    callers = [replay.caller[row] for row in rows]
    share = caller_weights(callers) / replay.propensity[rows]
    values = [np.array([float(quality[row]) - _price(r, replay, row) for row in rows]) for r in routers]
    return compare(values, [own[common] * share for own in weight], callers)


def _price(router: TaskRouter, replay: Replay, row: int) -> float:
    costs = (step.cost for step in replay.steps[row] if step.fault is None)
    return sum(min(router.policy.cost_weight * cost, MAX_PRICE) for cost in costs)


def _path_probability(router: TaskRouter, domains: MixtureHead, replay: Replay, row: int) -> float:
    task = replay.task[row]
    if task is None or task not in router.registry.tasks:
        return 0.0
    state = state_at(router, domains, replay, row)
    if not replay.task_fixed[row] and router.choose_task(state) != task:
        return 0.0
    return _actions_probability(router, state, task, replay, row)


def _actions_probability(router: TaskRouter, state: State, task: str, replay: Replay, row: int) -> float:
    experts = {expert.name: expert for expert in router.experts(task, state.language)}
    down: set[str] = set()
    seen: list[Observation] = []
    answer: int | None = None
    probability = 1.0

    def reachable(expert: Expert) -> bool:
        return expert.name not in down

    def taken(action: Action) -> float:
        return router.probability(state, task, seen, action, via=replay.via[row], reachable=reachable)

    for step in replay.steps[row]:
        name = name_of(step)
        if name != PROBE and name not in experts:
            return 0.0  # the registry has changed since
        action = Action("probe") if name == PROBE else Action("expert", experts[name])
        probability *= taken(action)
        if step.fault is not None or step.label is None:
            down.add(name)
            continue
        if step.accepted:
            answer = len(seen)
        seen.append(Observation(action, step.label, step.confidence, step.margin, step.pooled))
    if answer is None:
        return probability
    accept = Action("accept", seen[answer].action.expert, answer)
    return probability * taken(accept)

"""Trains the Q-network on simulated episodes with Double DQN.

An episode is one request. The agent picks an expert or a probe of any task, sees the confidence of
its answer, and then accepts it or asks another of that task's experts. Costs are paid when asking;
accepting ends the episode with reward 1 if the label is right for the task that was asked for, and
0 otherwise:

    y = r + gamma * Q_target(s', argmax_a Q(s', a))        (van Hasselt et al., 2016)
    r = 1[correct] on accepting, -cost_weight * cost on asking

Differences from the paper: actions are inputs of the network, so that the set of experts may
change; the loss is Huber's; exploration falls linearly; there is no frame history.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from moe_router.gating.qnetwork import FEATURES
from moe_router.gating.weights import Floats, Weights

PROBE, EXPERT = 0, 1
"""Tiers: the columns of `Episodes.offered` and the outcomes."""


@dataclass(frozen=True, slots=True)
class DqnRun:
    """Hyperparameters of a run."""

    updates: int = 6_000
    batch: int = 256
    learning_rate: float = 1e-3
    gamma: float = 0.97
    cost_weight: float = 0.05
    """reward paid for one call of an expert of cost 1"""
    epsilon_start: float = 0.5
    epsilon_end: float = 0.05
    target_every: int = 200
    width: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Episodes:
    """Requests with what each tier of each task would answer.

    n requests, k tasks, 2 tiers. `target` is the task asked for, -1 where none fits. Outcomes are
    those on the task asked for; any other task's answer counts as wrong.
    """

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
    target: NDArray[np.intp]
    """(n,)"""
    offered: NDArray[np.bool_]
    """(k, 2)"""
    cost: Floats
    """(2,)"""
    confidence: Floats
    """(n, 2)"""
    margin: Floats
    """(n, 2)"""
    correct: NDArray[np.bool_]
    """(n, 2)"""


class _Network(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.encoding = nn.Linear(2 * hidden, width, bias=False)
        self.action = nn.Linear(len(FEATURES), width)
        self.second = nn.Linear(width, width // 2)
        self.third = nn.Linear(width // 2, 1)

    def forward(self, encodings: Tensor, actions: Tensor) -> Tensor:
        """Q of (batch, 2 hidden) states and their (batch, n, features) actions: (batch, n)."""
        first = functional.relu(self.encoding(encodings).unsqueeze(1) + self.action(actions))
        value: Tensor = self.third(functional.relu(self.second(first))).squeeze(-1)
        return value


def train(episodes: Episodes, run: DqnRun, meta: Mapping[str, Any]) -> Weights:
    """Trains a network.

    Returns:
        The weights that `moe_router.gating.qnetwork.QNetwork` takes.
    """
    torch.manual_seed(run.seed)
    rng = np.random.default_rng(run.seed)
    hidden = episodes.description.shape[1]
    online = _Network(hidden, run.width)
    target = copy.deepcopy(online)
    optimizer = torch.optim.AdamW(online.parameters(), lr=run.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.updates)
    for update in range(run.updates):
        epsilon = run.epsilon_start + (run.epsilon_end - run.epsilon_start) * update / run.updates
        rows = rng.integers(len(episodes.target), size=run.batch)
        loss = _episode_loss(episodes, rows, online, target, run, epsilon, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if update % run.target_every == 0:
            target.load_state_dict(online.state_dict())
    state = {name: value.detach().numpy() for name, value in online.state_dict().items()}
    arrays = {
        "encoding.weight": state["encoding.weight"], "action.weight": state["action.weight"],
        "1.bias": state["action.bias"], "2.weight": state["second.weight"], "2.bias": state["second.bias"],
        "3.weight": state["third.weight"], "3.bias": state["third.bias"],
    }  # fmt: skip
    return Weights(arrays, dict(meta) | {"features": list(FEATURES), "run": asdict(run)})


def _episode_loss(
    episodes: Episodes,
    rows: NDArray[np.intp],
    online: _Network,
    target: _Network,
    run: DqnRun,
    epsilon: float,
    rng: np.random.Generator,
) -> Tensor:
    """Plays the first two steps of each row's episode and returns the loss of both.

    The second step's transitions are complete: after it only accepting is left where both tiers
    were asked, whose value is the known reward.
    """
    encodings = torch.from_numpy(np.concatenate([episodes.description[rows], episodes.text[rows]], axis=1))
    flat = np.argwhere(episodes.offered)
    first = torch.from_numpy(first_actions(episodes, rows, flat))
    values = online(encodings, first)
    greedy = values.detach().argmax(1).numpy()
    explored = rng.random(len(rows)) < epsilon
    # Half of the exploration tries the task that is asked for: else a sparse reward is seldom seen.
    wanted = episodes.target[rows]
    guided = explored & (rng.random(len(rows)) < 0.5) & (wanted >= 0)
    chosen = np.where(explored, rng.integers(len(flat), size=len(rows)), greedy)
    for index in np.flatnonzero(guided):
        own = np.flatnonzero(flat[:, 0] == wanted[index])
        if len(own):
            chosen[index] = own[rng.integers(len(own))]
    task, tier = flat[chosen].T
    right_task = task == wanted
    cost = episodes.cost[tier]
    second = second_actions(episodes, rows, task, tier, rng)
    # After an expert the probe is not offered: it was there to be asked first.
    other = episodes.offered[task, 1 - tier] & (tier == PROBE)
    second_t = torch.from_numpy(second)
    accept_reward = torch.from_numpy((right_task & episodes.correct[rows, tier]).astype(np.float32))
    both_correct = right_task & episodes.correct[rows, 1 - tier]
    ask_reward = torch.from_numpy(
        run.gamma * both_correct.astype(np.float32) - run.cost_weight * episodes.cost[1 - tier]
    )
    with torch.no_grad():
        choice = online(encodings, second_t)
        choice[~torch.from_numpy(other), 1] = -torch.inf
        best = choice.argmax(1, keepdim=True)
        ahead = target(encodings, second_t).gather(1, best).squeeze(1)
    y_first = run.gamma * ahead - run.cost_weight * torch.from_numpy(cost)
    q_first = values.gather(1, torch.from_numpy(chosen)[:, None]).squeeze(1)
    q_second = online(encodings, second_t)
    loss = functional.smooth_l1_loss(q_first, y_first, beta=0.2)
    loss = loss + functional.smooth_l1_loss(q_second[:, 0], accept_reward, beta=0.2)
    if other.any():
        mask = torch.from_numpy(other)
        loss = loss + functional.smooth_l1_loss(q_second[mask, 1], ask_reward[mask], beta=0.2)
    return loss


def first_actions(episodes: Episodes, rows: NDArray[np.intp], flat: NDArray[np.intp]) -> Floats:
    """Phi of every offered (task, tier): (len(rows), len(flat), features)."""
    task, tier = flat.T
    shape = (len(rows), len(flat))
    columns = _base(episodes, rows[:, None], task[None, :], shape)
    columns["probe"] = np.broadcast_to(tier == PROBE, shape)
    columns["expert"] = np.broadcast_to(tier == EXPERT, shape)
    columns["cost"] = np.broadcast_to(np.where(tier == EXPERT, episodes.cost[tier], 0.0), shape)
    return _stack(columns, shape)


def second_actions(
    episodes: Episodes,
    rows: NDArray[np.intp],
    task: NDArray[np.intp],
    tier: NDArray[np.intp],
    rng: np.random.Generator,
) -> Floats:
    """Phi of accepting and of asking the other tier, after one answer: (len(rows), 2, features)."""
    right = task == episodes.target[rows]
    # A task that was not asked for answers with somebody else's confidence.
    source = np.where(right, rows, rng.permutation(rows))
    confidence, margin = episodes.confidence[source, tier], episodes.margin[source, tier]
    shape = (len(rows), 2)
    columns = _base(episodes, rows[:, None], task[:, None], shape)
    probed, asked = (tier == PROBE)[:, None], (tier == EXPERT)[:, None]
    columns["accept"] = np.broadcast_to(np.array([1.0, 0.0]), shape)
    columns["probe"] = np.concatenate([np.zeros((len(rows), 1)), asked], axis=1)
    columns["expert"] = np.concatenate([np.zeros((len(rows), 1)), probed], axis=1)
    columns["cost"] = columns["expert"] * episodes.cost[EXPERT]
    columns["probed"] = np.broadcast_to(probed, shape)
    columns["probe_confidence"] = np.broadcast_to(probed * confidence[:, None], shape)
    columns["probe_margin"] = np.broadcast_to(probed * margin[:, None], shape)
    columns["asked"] = np.broadcast_to(asked / 4, shape)
    columns["last_confidence"] = np.broadcast_to(confidence[:, None], shape)
    columns["best_confidence"] = columns["last_confidence"]
    columns["repeated"] = np.broadcast_to(asked, shape)
    return _stack(columns, shape)


def _base(
    episodes: Episodes, rows: NDArray[np.intp], task: NDArray[np.intp], shape: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    return {name: np.zeros(shape) for name in FEATURES} | {
        "task_probability": episodes.task_probability[rows, task],
        "none_probability": episodes.none_probability[rows],
        "domain_probability": episodes.domain_probability[rows, task],
        "language_probability": episodes.language_probability[rows],
    }


def _stack(columns: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> Floats:
    return np.stack([np.broadcast_to(columns[name], shape) for name in FEATURES], axis=-1).astype(np.float32)

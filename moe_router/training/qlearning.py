"""Trains the Q-network with Double DQN on episodes whose outcomes are all known.

An episode is one request. The agent asks the probe or an expert of some task, sees its answer, and
then accepts one of the answers so far or asks another expert of that task. Asking costs a price;
accepting ends the episode with reward 1 if the label is right for the task that was asked for, and
0 otherwise:

    y = r + gamma * Q_target(s', argmax_a Q(s', a))        (van Hasselt et al., 2016)
    r = 1[correct] on accepting, -price on asking

Differences from the paper: (1) actions are inputs of the network, so that the set of experts may
change; (2) since what every expert would answer is known, each visited state teaches the values of
all its actions, not only of the one taken; (3) the loss is the squared error, whose minimum is the
mean, so that the value of accepting is a probability; (4) the price is drawn anew for each episode
and is an input; (5) exploration falls linearly; (6) there is no frame history; (7) arms that are made up
are drawn anew whenever an episode is played.
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
from moe_router.training.arms import drawn_anew
from moe_router.training.episodes import Episodes, Known, ask_features, followers, start_features

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DqnRun:
    """Hyperparameters of a run."""

    updates: int = 4_000
    batch: int = 192
    learning_rate: float = 1e-3
    gamma: float = 0.98
    cost_weights: tuple[float, float] = (0.002, 0.5)
    """what a call of cost 1 costs, drawn log-uniformly for each episode; one in ten costs nothing"""
    epsilon_start: float = 0.5
    epsilon_end: float = 0.05
    target_every: int = 100
    width: int = 64
    encoding_decay: float = 1.0
    """weight decay of the layer that reads the encodings: they tell the task, not who is right on a text"""
    seed: int = 0


class Network(nn.Module):
    """`moe_router.gating.qnetwork` in torch."""

    def __init__(self, hidden: int, width: int) -> None:
        """Draws the weights."""
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

    def arrays(self) -> dict[str, Floats]:
        """The arrays that `QNetwork` takes."""
        state = {name: value.detach().numpy() for name, value in self.state_dict().items()}
        return {
            "encoding.weight": state["encoding.weight"], "action.weight": state["action.weight"],
            "1.bias": state["action.bias"], "2.weight": state["second.weight"],
            "2.bias": state["second.bias"], "3.weight": state["third.weight"], "3.bias": state["third.bias"],
        }  # fmt: skip

    def take(self, arrays: Mapping[str, Floats]) -> None:
        """Goes on from weights made earlier."""
        names = {
            "encoding.weight": "encoding.weight", "action.weight": "action.weight", "action.bias": "1.bias",
            "second.weight": "2.weight", "second.bias": "2.bias", "third.weight": "3.weight",
            "third.bias": "3.bias",
        }  # fmt: skip
        self.load_state_dict({own: torch.from_numpy(np.array(arrays[name])) for own, name in names.items()})


def train(
    episodes: Episodes, run: DqnRun, meta: Mapping[str, Any], *, start: Mapping[str, Floats] | None = None
) -> Weights:
    """Trains a network.

    Args:
        episodes: what it learns from.
        run: the hyperparameters.
        meta: goes into the weights' description.
        start: arrays to go on from; None for fresh ones.

    Returns:
        The weights that `moe_router.gating.qnetwork.QNetwork` takes.
    """
    torch.manual_seed(run.seed)
    rng = np.random.default_rng(run.seed)
    online = Network(episodes.description.shape[1], run.width)
    if start is not None:
        online.take(start)
    target = copy.deepcopy(online)
    layers: list[dict[str, Any]] = [
        {"params": [p for layer in (online.action, online.second, online.third) for p in layer.parameters()]},
        {"params": online.encoding.parameters(), "weight_decay": run.encoding_decay},
    ]
    optimizer = torch.optim.AdamW(layers, lr=run.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.updates)
    for update in range(run.updates):
        epsilon = run.epsilon_start + (run.epsilon_end - run.epsilon_start) * update / run.updates
        rows = rng.integers(len(episodes.target), size=run.batch)
        own = drawn_anew(episodes.take(rows), rng)
        priced = own.priced(_cost_weights(run, rng)[:, None])
        loss = episode_loss(priced, online, target, run.gamma, epsilon, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if update % run.target_every == 0:
            target.load_state_dict(online.state_dict())
    return Weights(online.arrays(), dict(meta) | {"features": list(FEATURES), "run": asdict(run)})


def episode_loss(
    own: Episodes,
    online: nn.Module,
    target: nn.Module,
    gamma: float,
    epsilon: float,
    rng: np.random.Generator,
) -> Tensor:
    """Plays each row's episode, exploring, and returns the mean squared error of all values on its way.

    Args:
        own: one row an episode, with prices.
        online: chooses, and is trained.
        target: values what follows.
        gamma: discount of what follows.
        epsilon: share of the steps taken at random.
        rng: draws them.
    """
    encodings = torch.from_numpy(np.concatenate([own.description, own.text], axis=1))
    rows = np.arange(len(own.target))
    values = online(encodings, torch.from_numpy(start_features(own)))  # (b, k * m)
    task, arm = _first_choice(own, values.detach().numpy(), epsilon, rng)
    known = Known.after_first(own, task, arm, rng)
    price = torch.from_numpy(own.price[rows, arm])
    first = values[torch.from_numpy(rows), torch.from_numpy(task * own.arms + arm)]
    total = functional.mse_loss(first, gamma * _ahead(encodings, known, online, target) - price)
    for _ in range(own.arms):
        q, allowed = _values(encodings, known, online)
        accept, ask = q[:, : own.arms], q[:, own.arms :]
        may_accept, may_ask = allowed[:, : own.arms], allowed[:, own.arms :]
        reward = torch.from_numpy(known.correct.astype(np.float32))
        total = total + _masked_mse(accept, reward, may_accept)
        if not may_ask.any():
            break
        y = torch.stack(
            [
                gamma * _ahead(encodings, known.after(index), online, target)
                - torch.from_numpy(own.price[:, index])
                for index in range(own.arms)
            ],
            dim=1,
        )
        total = total + _masked_mse(ask, y, may_ask)
        known = known.after(_next_arm(q.detach().numpy(), allowed, epsilon, rng, own.arms))
    return total


def _cost_weights(run: DqnRun, rng: np.random.Generator) -> Floats:
    low, high = np.log(run.cost_weights)
    drawn = np.exp(rng.uniform(low, high, run.batch))
    return np.where(rng.random(run.batch) < 0.1, 0.0, drawn).astype(np.float32)


def _first_choice(
    own: Episodes, values: Floats, epsilon: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first task and arm of each episode: the most valuable, or at random."""
    count = len(own.target)
    offered = np.tile(own.offered, (1, own.tasks))
    greedy = np.where(offered, values, -np.inf).argmax(1)
    task, arm = greedy // own.arms, greedy % own.arms
    explored = rng.random(count) < epsilon
    # Half of the exploration tries the task that is asked for: else a sparse reward is seldom seen.
    guided = (rng.random(count) < 0.5) & (own.target >= 0)
    drawn = np.where(guided, own.target, rng.integers(own.tasks, size=count))
    any_arm = np.where(own.offered, rng.random(own.offered.shape), -1.0).argmax(1)
    return np.where(explored, drawn, task), np.where(explored, any_arm, arm)


def _next_arm(
    values: Floats, allowed: Bools, epsilon: float, rng: np.random.Generator, arms: int
) -> NDArray[np.intp]:
    """Which arm is asked next; -1 where an answer is accepted or nobody is left to ask."""
    best = np.where(allowed, values, -np.inf).argmax(1)
    any_of = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(1)
    chosen = np.where(rng.random(len(values)) < epsilon, any_of, best)
    return np.where(chosen >= arms, chosen - arms, -1)


def _values(encodings: Tensor, known: Known, network: nn.Module) -> tuple[Tensor, Bools]:
    q: Tensor = network(encodings, torch.from_numpy(ask_features(known)))
    return q, followers(known)


def _ahead(encodings: Tensor, known: Known, online: nn.Module, target: nn.Module) -> Tensor:
    """What the state is worth: the target network's value of what the online network would do."""
    with torch.no_grad():
        phi = torch.from_numpy(ask_features(known))
        choice = online(encodings, phi)
        choice[torch.from_numpy(~followers(known))] = -torch.inf
        ahead: Tensor = target(encodings, phi).gather(1, choice.argmax(1, keepdim=True)).squeeze(1)
    return ahead


def _masked_mse(values: Tensor, y: Tensor, mask: Bools) -> Tensor:
    kept = torch.from_numpy(mask)
    return functional.mse_loss(values[kept], y[kept]) if mask.any() else values.sum() * 0.0

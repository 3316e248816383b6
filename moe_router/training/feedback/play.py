"""What a Q-network's own choices are worth on episodes whose outcomes are all known."""

from __future__ import annotations

import numpy as np

from moe_router.gating.qnetwork import QNetwork
from moe_router.gating.weights import Floats
from moe_router.training.episodes import Bools, Episodes, Ints, Known, ask_features, followers, start_features


def play(network: QNetwork, own: Episodes) -> float:
    """The mean of right answers less the prices paid for them, every choice the most valuable one.

    Args:
        network: chooses.
        own: priced episodes; those without a task are passed over, and the task is taken as known, since
            which task is chosen is judged elsewhere. nan where none is left.
    """
    own = own.take(np.flatnonzero(own.target >= 0))
    count, arms = own.offered.shape
    if not count:
        return float("nan")
    states = [network.state(*pair) for pair in zip(own.description, own.text, strict=True)]
    rows = np.arange(count)
    start = start_features(own).reshape(count, own.tasks, arms, -1)[rows, own.target]
    arm = _best(network, states, start, own.offered)
    known = Known.after_first(own, own.target, arm, np.random.default_rng(0))
    worth = -own.price[rows, arm]
    playing = np.ones(count, bool)
    for _ in range(arms):
        chosen = _best(network, states, ask_features(known), followers(known))
        accepts = playing & (chosen < arms)
        worth = worth + np.where(accepts, known.correct[rows, chosen % arms], 0.0)
        asks = playing & (chosen >= arms)
        worth = worth - np.where(asks, own.price[rows, chosen % arms], 0.0)
        known = known.after(np.where(asks, chosen % arms, -1))
        playing = asks
    return float(worth.mean())


def _best(network: QNetwork, states: list[Floats], actions: Floats, allowed: Bools) -> Ints:
    values = np.stack([network.values(state, own) for state, own in zip(states, actions, strict=True)])
    return np.asarray(np.where(allowed, values, -np.inf).argmax(axis=1))

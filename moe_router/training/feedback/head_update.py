"""Goes on training the task head's description part from feedback, without forgetting.

From the live weights, least

    L = a mean_f w_f l(f) + mean_i h(i) + (c / 2) |D|^2
    l = -log sum_k p(k | d) share(k, target | t),    h = -sum_k p_live(k | d) log p(k | d)

f runs over feedback rows, w_f splits the weight evenly between callers; i over the anchor, the
requests that the shipped head was fitted on: there the head shall answer as it did (learning without
forgetting: Li & Hoiem, 2016), not fit them once more, which alone would move it. D is how far the
weights have moved, on standardised vectors. share is what `moe_router.gating.heads` makes of an open
column: the text says how much of its mass goes to the target. With n rows, a = n / (n + `HALF_ROWS`):
few rows say little. Only the description part learns; a request without a description teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_router.gating.heads import MixtureHead
from moe_router.gating.weights import Floats, Weights

HALF_ROWS = 100.0
"""With so many feedback rows their mean loss counts half of what it counts in the end."""


@dataclass(frozen=True, slots=True)
class HeadRun:
    """Hyperparameters of an update."""

    feedback: float = 0.3
    """weight of the feedback against the anchor, with very many rows"""
    proximal: float = 0.002
    """c, the price of moving"""
    iterations: int = 60


@dataclass(frozen=True, slots=True)
class HeadRows:
    """n requests with what they were about."""

    description: Floats
    """(n, hidden) unit vectors"""
    shares: Floats
    """(n, columns): how much of each column's mass is the target's"""
    weight: Floats
    """(n,)"""


def update_head(
    live: Weights, head: MixtureHead, feedback: HeadRows, anchor: Floats, run: HeadRun
) -> Weights:
    """The weights after the feedback; the same for the same input.

    Args:
        live: weights to go on from.
        head: made of them, with the classes in use.
        feedback: what callers say.
        anchor: (n, hidden) unit vectors of the requests on which the answers shall stay.
        run: the hyperparameters.
    """
    if not len(feedback.description):
        return live
    mean, deviation = anchor.mean(0), anchor.std(0) + 1e-6
    told, kept = (_part(v, live, head, mean, deviation) for v in (feedback.description, anchor))
    shares, weight = (_doubles(array) for array in (feedback.shares, feedback.weight))
    before = torch.softmax(kept.logits, dim=1)
    columns, hidden = live.arrays["describe.weight"].shape
    moved = torch.zeros(columns, hidden, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(columns, dtype=torch.float64, requires_grad=True)
    count = len(feedback.description)
    scale = run.feedback * count / (count + HALF_ROWS)
    optimizer = torch.optim.LBFGS(
        [moved, shift], max_iter=run.iterations, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        # A share of 0 is no likelihood at all, however much mass the column has.
        likelihood = (told.log_p(moved, shift).exp() * shares).sum(1).clamp(min=1e-12).log()
        loss = -scale * (weight * likelihood).sum() / weight.sum()
        loss = loss - (before * kept.log_p(moved, shift)).sum(1).mean()
        loss = loss + run.proximal / 2 * (moved.square().sum() + shift.square().sum())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    change = moved.detach().numpy() / deviation
    bias = shift.detach().numpy() - change @ mean
    arrays = dict(live.arrays) | {
        "describe.weight": (live.arrays["describe.weight"] + change).astype(np.float32),
        "describe.bias": (live.arrays["describe.bias"] + bias).astype(np.float32),
    }
    return Weights(arrays, live.meta)


@dataclass(frozen=True, slots=True)
class _Part:
    """Vectors as the loss needs them, with the logits that the live weights give them."""

    vectors: Tensor
    """standardised"""
    logits: Tensor
    """over the temperature"""
    temperature: float

    def log_p(self, moved: Tensor, shift: Tensor) -> Tensor:
        """(n, columns) log-probabilities once the weights have moved."""
        change = self.vectors @ moved.T + shift
        # Classes that the weights have never seen have no row here: only their rivals move.
        change = torch.nn.functional.pad(change, (0, self.logits.shape[1] - change.shape[1]))
        return torch.log_softmax(self.logits + change / self.temperature, dim=1)


def _part(vectors: Floats, live: Weights, head: MixtureHead, mean: Floats, deviation: Floats) -> _Part:
    logits = head.prior_logits(vectors)
    trained = vectors @ live.arrays["describe.weight"].T + live.arrays["describe.bias"]
    logits[:, : trained.shape[1]] += trained
    temperature = float(live.meta["temperature"])
    return _Part(_doubles((vectors - mean) / deviation), _doubles(logits) / temperature, temperature)


def _doubles(array: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))

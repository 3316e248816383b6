"""Goes on training the task head's description part from feedback, without forgetting.

From the live weights, least

    L = a mean_f w_f l(f) + mean_i l(i) + (c / 2) |D|^2,    l = -log sum_k p(k | d) share(k, target | t)

f runs over feedback rows, w_f splits the weight evenly between callers; i over the anchor, the
requests that the shipped head was fitted on, which keep the old tasks; D is how far the weights have
moved, on standardised vectors. share is what `moe_router.gating.heads` makes of an open column: the
text says how much of its mass goes to the target. With n rows, a = n / (n + `HALF_ROWS`): few rows
say little. Only the description part learns; a request without a description teaches nothing here.
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

    feedback: float = 1.0
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
    live: Weights, head: MixtureHead, feedback: HeadRows, anchor: HeadRows, run: HeadRun
) -> Weights:
    """The weights after the feedback; the same for the same input.

    Args:
        live: weights to go on from.
        head: made of them, with the classes in use.
        feedback: what callers say.
        anchor: what must not be forgotten.
        run: the hyperparameters.
    """
    if not len(feedback.description):
        return live
    mean, deviation = anchor.description.mean(0), anchor.description.std(0) + 1e-6
    parts = [_part(rows, live, head, mean, deviation) for rows in (feedback, anchor)]
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
        loss = scale * parts[0].loss(moved, shift) + parts[1].loss(moved, shift)
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
    """Rows as tensors, with the logits that the live weights give them."""

    vectors: Tensor
    logits: Tensor
    log_shares: Tensor
    weight: Tensor
    temperature: float

    def loss(self, moved: Tensor, shift: Tensor) -> Tensor:
        """Weighted mean of the negative log-likelihood."""
        change = self.vectors @ moved.T + shift
        # Classes that the weights have never seen have no row here: only their rivals move.
        change = torch.nn.functional.pad(change, (0, self.logits.shape[1] - change.shape[1]))
        log_p = torch.log_softmax((self.logits + change) / self.temperature, dim=1)
        likelihood = torch.logsumexp(log_p + self.log_shares, dim=1)
        return -(self.weight * likelihood).sum() / self.weight.sum()


def _part(rows: HeadRows, live: Weights, head: MixtureHead, mean: Floats, deviation: Floats) -> _Part:
    base = head.prior_logits(rows.description)
    trained = rows.description @ live.arrays["describe.weight"].T + live.arrays["describe.bias"]
    base[:, : trained.shape[1]] += trained
    vectors, logits, log_shares, weight = (
        torch.from_numpy(np.asarray(array, np.float64))
        for array in (
            (rows.description - mean) / deviation,
            base,
            np.log(np.maximum(rows.shares, 1e-12)),
            rows.weight,
        )
    )
    return _Part(vectors, logits, log_shares, weight, float(live.meta["temperature"]))

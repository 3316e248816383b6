"""Batches of like length under a budget of tokens, in an order that a seed and an epoch fix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moe_router.training.experts.examples import Example

POOL = 16
"""Batches' worth of examples that are sorted by length together: the larger, the less padding and chance."""


def batches(examples: Sequence[Example], max_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch's batches of indices: rows × longest row is at most `max_tokens`, or there is one row."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(examples))
    lengths = np.array([len(example.tokens) for example in examples])
    size = max(1, int(POOL * max_tokens / max(1.0, float(lengths.mean()))))
    made: list[list[int]] = []
    for at in range(0, len(order), size):
        made += _packed(
            sorted(order[at : at + size].tolist(), key=lambda i: int(lengths[i])), lengths, max_tokens
        )
    return [made[int(index)] for index in rng.permutation(len(made))]


def _packed(ordered: Sequence[int], lengths: np.ndarray, max_tokens: int) -> list[list[int]]:
    made: list[list[int]] = [[]]
    for index in ordered:  # the shortest first, so that the newcomer is the longest
        if made[-1] and (len(made[-1]) + 1) * int(lengths[index]) > max_tokens:
            made.append([])
        made[-1].append(index)
    return made

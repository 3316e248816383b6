"""The probability of each label, from a trie of the labels' tokens.

A label's probability is that of constrained decoding: at each node of the trie where several
labels part, a softmax over the tokens that lead on, and the product of these along the label's
path:

    P(label) = Π softmax(logits at node, over the node's children)[child on the path]

This is exact and sums to 1 by construction. Where only one token leads on, its probability is 1,
so that long labels cost a model nothing after they have become unambiguous, and a label is not
made less likely by its length. Only the LM head's rows of children are ever needed. A model that is
fine-tuned on the labels puts its mass on the trie, so that for it the product also equals the
unconstrained probability of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROOT = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A prefix of some label's tokens.

    `children` maps the next token to the node it leads to; `label` is the index of the label that
    ends here, in which case there are no children.
    """

    token: int
    parent: int
    depth: int
    children: dict[int, int]
    label: int | None


class LabelTrie:
    """The labels of a task as token sequences.

    Args:
        sequences: each label's tokens, in the label set's order.
        end: the token that closes a label where another label goes on, such as a line break.

    Raises:
        ValueError: a label has no tokens, or two have the same, or one closed label begins another.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], end: int) -> None:
        closed = [_closed(tuple(own), sequences, end) for own in sequences]
        # In order, a sequence that begins another stands just before one that it begins.
        told_apart = all(b[: len(a)] != a for a, b in pairwise(sorted(closed)))
        if not told_apart or not closed:
            raise ValueError("two labels have the same tokens, or there is none")
        self.sequences = tuple(closed)
        self.nodes: list[Node] = [Node(-1, -1, 0, {}, None)]
        for index, tokens in enumerate(closed):
            self._insert(index, tokens)

    def _insert(self, label: int, tokens: Sequence[int]) -> None:
        at = ROOT
        for step, token in enumerate(tokens):
            known = self.nodes[at].children.get(token)
            if known is None:
                known = len(self.nodes)
                self.nodes[at].children[token] = known
                last = step == len(tokens) - 1
                self.nodes.append(Node(token, at, step + 1, {}, label if last else None))
            at = known

    @cached_property
    def depth(self) -> int:
        """Tokens of the longest label."""
        return max(map(len, self.sequences))

    @cached_property
    def branches(self) -> tuple[int, ...]:
        """The nodes at which labels part, the root first: parents come before their descendants."""
        return tuple(index for index, node in enumerate(self.nodes) if len(node.children) > 1)

    @cached_property
    def context(self) -> tuple[int, ...]:
        """The nodes, less the root, whose tokens a model must read to know every branch; parents first."""
        return self.context_of(self.branches)

    def context_of(self, branches: Sequence[int]) -> tuple[int, ...]:
        """As `context`, for some of the branches only."""
        needed: set[int] = set()
        for branch in branches:
            at = branch
            while at != ROOT and at not in needed:
                needed.add(at)
                at = self.nodes[at].parent
        return tuple(sorted(needed))

    def log_probabilities(self, logits: Mapping[int, Sequence[float] | Floats]) -> Floats:
        """Each label's log-probability, in the label set's order.

        Args:
            logits: for each branch, its children's logits in the order of `Node.children`.
                A branch that is missing is taken to be indifferent between its labels.
        """
        total = np.zeros(len(self.sequences))
        for index, arrived in self._descend(logits):
            label = self.nodes[index].label
            if label is not None:
                total[label] = arrived
        return total

    def worth_reading(
        self, logits: Mapping[int, Sequence[float] | Floats], negligible: float
    ) -> tuple[int, ...]:
        """The branches whose logits are not known and matter.

        Left out are the least likely children of known branches, as long as all of them together have no more
        than the `negligible` probability; with a child goes all that grows from it.
        """
        arrived = dict(self._descend(logits))
        unknown = [branch for branch in self.branches if branch not in logits]
        entry = {branch: self._entry(branch, logits) for branch in unknown}
        dropped: set[int] = set()
        spent = 0.0
        for child in sorted(set(entry.values()), key=lambda node: arrived[node]):
            spent += float(np.exp(arrived[child]))
            if spent > negligible:
                break
            dropped.add(child)
        return tuple(branch for branch in unknown if entry[branch] not in dropped)

    def _entry(self, branch: int, known: Mapping[int, object]) -> int:
        """The ancestor of a branch, or the branch, whose own probability is known and which is lowest."""
        path = [branch]
        while self.nodes[path[-1]].parent != -1:
            path.append(self.nodes[path[-1]].parent)
        for node, parent in pairwise(path):
            if parent in known:
                return node
        return path[-1]

    def _descend(self, logits: Mapping[int, Sequence[float] | Floats]) -> list[tuple[int, float]]:
        arrived = np.zeros(len(self.nodes))
        for index, node in enumerate(self.nodes):  # parents were inserted before their children
            if not node.children:
                continue
            children = list(node.children.values())
            if len(children) == 1:  # most of a big trie's nodes
                arrived[children[0]] = arrived[index]
                continue
            known = logits.get(index)
            steps = log_softmax(known if known is not None else np.log(self._leaves(children)))
            arrived[children] = arrived[index] + steps
        return list(enumerate(arrived))

    def _leaves(self, nodes: Sequence[int]) -> Floats:
        return np.array([self._sizes[node] for node in nodes], dtype=np.float64)

    @cached_property
    def _sizes(self) -> list[int]:
        """How many labels lie below each node."""
        sizes = [int(node.label is not None) for node in self.nodes]
        for index in range(len(self.nodes) - 1, ROOT, -1):
            sizes[self.nodes[index].parent] += sizes[index]
        return sizes


def _closed(own: tuple[int, ...], all_sequences: Sequence[Sequence[int]], end: int) -> tuple[int, ...]:
    if not own:
        raise ValueError("a label has no tokens")
    goes_on = any(len(other) > len(own) and tuple(other[: len(own)]) == own for other in all_sequences)
    return (*own, end) if goes_on else own


def log_sum_exp(values: Sequence[float] | Floats) -> float:
    """Log Σ exp(value), without overflow."""
    array = np.asarray(values, dtype=np.float64)
    top = array.max()
    if not np.isfinite(top):
        return float(top)
    return float(top + np.log(np.exp(array - top).sum()))


def log_softmax(values: Sequence[float] | Floats) -> Floats:
    """The logarithm of softmax, in float64."""
    array = np.asarray(values, dtype=np.float64)
    return array - log_sum_exp(array)


def distribution(
    log_probabilities: Floats, *, prior: Floats | None = None, temperature: float = 1.0
) -> Floats:
    """Calibrated probabilities, summing to 1: softmax((log p - log prior) / temperature).

    Args:
        log_probabilities: (n_labels,) what the model says.
        prior: (n_labels,) log-probabilities for a text that says nothing; dividing by them takes away
            the model's liking for some labels (contextual calibration, Zhao et al. 2021).
        temperature: above 1 makes the distribution flatter.

    Raises:
        ValueError: the temperature is not positive, or a log-probability is NaN.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; it must be positive")
    if np.isnan(log_probabilities).any():
        raise ValueError("the model answered with NaN")
    shifted = log_probabilities if prior is None else log_probabilities - prior
    probabilities: Floats = np.exp(log_softmax(shifted / temperature))
    normalised: Floats = probabilities / probabilities.sum()
    return normalised


def tempered(log_probabilities: Floats, temperature: Floats | float) -> Floats:
    """The probabilities of what is true or false, their log-odds divided by the temperature.

    Args:
        log_probabilities: at most 0, of any shape.
        temperature: above 1 draws them to a half; of a shape that goes with theirs.
    """
    with np.errstate(divide="ignore"):  # what is certain has infinite odds, and stays so
        odds = log_probabilities - np.log(-np.expm1(log_probabilities))
    probabilities: Floats = np.exp(-np.logaddexp(0.0, -odds / temperature))
    return probabilities

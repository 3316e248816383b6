from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.experts.scoring import ROOT, LabelTrie, distribution, log_softmax, log_sum_exp

END = 99
labels = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12, unique=True
)


def logit(prefix: tuple[int, ...], token: int) -> float:
    """Any function of prefix and token will do for a model."""
    return math.sin(1.0 + sum((i + 1) * t for i, t in enumerate((*prefix, token))) * 1.7) * 3


def known(trie: LabelTrie) -> dict[int, list[float]]:
    def prefix(node: int) -> tuple[int, ...]:
        return () if node == ROOT else (*prefix(trie.nodes[node].parent), trie.nodes[node].token)

    return {b: [logit(prefix(b), t) for t in trie.nodes[b].children] for b in trie.branches}


def brute_force(sequences: tuple[tuple[int, ...], ...]) -> list[float]:
    """Each label token by token; at each step a softmax over the tokens that some label allows there."""
    total = []
    for own in sequences:
        score = 0.0
        for step, token in enumerate(own):
            prefix = own[:step]
            allowed = {s[step] for s in sequences if len(s) > step and s[:step] == prefix}
            score += logit(prefix, token) - math.log(sum(math.exp(logit(prefix, t)) for t in allowed))
        total.append(score)
    return total


@given(labels)
def test_the_trie_gives_what_scoring_every_sequence_gives(sequences: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(sequences, END)
    found = trie.log_probabilities(known(trie))
    assert found == pytest.approx(brute_force(trie.sequences))
    assert np.exp(found).sum() == pytest.approx(1.0)


@given(labels)
def test_the_context_holds_what_the_branches_need_and_no_more(sequences: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(sequences, END)
    needed = set()
    for branch in trie.branches:
        while branch != ROOT:
            needed.add(branch)
            branch = trie.nodes[branch].parent
    assert set(trie.context) == needed
    for index, node in enumerate(trie.context):
        assert trie.nodes[node].parent in (ROOT, *trie.context[:index])


@given(labels, st.sampled_from([0.0, 5e-4, 0.05]))
def test_what_is_not_read_changes_no_label_by_more_than_the_bound(
    sequences: list[tuple[int, ...]], negligible: float
) -> None:
    trie = LabelTrie(sequences, END)
    everything = known(trie)
    exact = np.exp(trie.log_probabilities(everything))
    read = {ROOT: everything[ROOT]} if ROOT in everything else {}
    read |= {b: everything[b] for b in trie.worth_reading(read, negligible)}
    assert np.abs(np.exp(trie.log_probabilities(read)) - exact).max() <= negligible + 1e-12


def test_a_label_that_begins_another_is_closed_by_the_end_token() -> None:
    trie = LabelTrie([(1,), (1, 2), (3,)], END)
    assert trie.sequences == ((1, END), (1, 2), (3,))
    assert trie.branches == (0, 1)


def test_a_single_label_needs_no_logits() -> None:
    assert LabelTrie([(1, 2, 3)], END).log_probabilities({}) == pytest.approx([0.0])


@pytest.mark.parametrize(
    "sequences", [[], [()], [(1, 2), (1, 2)], [(1,), (1, END)], [(1,), (1, 2), (1, END, 2), (1, END, 1)]]
)
def test_labels_that_cannot_be_told_apart_are_refused(sequences: list[tuple[int, ...]]) -> None:
    if len(sequences) > 1 and (1,) in sequences:
        with pytest.raises(ValueError, match="same tokens"):
            LabelTrie(sequences, END)
    else:
        with pytest.raises(ValueError):
            LabelTrie(sequences, END)


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=80), st.floats(0.05, 20))
def test_probabilities_sum_to_one(values: list[float], temperature: float) -> None:
    found = distribution(log_softmax(values), temperature=temperature)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()


def test_a_prior_takes_the_models_liking_away() -> None:
    liking = np.log([0.8, 0.2])
    assert distribution(liking, prior=liking) == pytest.approx([0.5, 0.5])


def test_temperature_flattens() -> None:
    sharp = np.log([0.9, 0.1])
    assert distribution(sharp, temperature=4.0).max() < 0.9


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        distribution(np.zeros(2), temperature=temperature)


def test_nan_is_never_an_answer() -> None:
    with pytest.raises(ValueError, match="NaN"):
        distribution(np.array([math.nan, 0.0]))


def test_log_sum_exp_does_not_overflow() -> None:
    assert log_sum_exp([1000.0, 1000.0]) == pytest.approx(1000 + math.log(2))
    assert log_sum_exp([-math.inf]) == -math.inf

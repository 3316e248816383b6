from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.gating.opinion_pool import OpinionPool

EXPERT = {"a": 0.6, "b": 0.3, "c": 0.1}
weights = st.floats(0, 5)
tables = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(lambda p: dict(zip("abc", p, strict=True)))


def test_one_opinion_alone_is_itself():
    alone = OpinionPool(0.0, 1.0)({"a": 0.1, "b": 0.1, "c": 0.8}, EXPERT)
    assert alone == pytest.approx(EXPERT, abs=1e-6)


def test_two_that_agree_are_surer_than_either_and_two_that_differ_less():
    pool = OpinionPool(1.0, 1.0)
    assert pool(EXPERT, EXPERT)["a"] > 0.6
    assert max(pool({"a": 0.1, "b": 0.3, "c": 0.6}, EXPERT).values()) < 0.6


def test_it_is_the_normalised_product_of_powers():
    probe = {"a": 0.2, "b": 0.5, "c": 0.3}
    expected = np.array([0.2, 0.5, 0.3]) ** 0.4 * np.array([0.6, 0.3, 0.1]) ** 0.9
    assert list(OpinionPool(0.4, 0.9)(probe, EXPERT).values()) == pytest.approx(expected / expected.sum())


def test_the_labels_are_the_probes_whatever_the_expert_names():
    joint = OpinionPool(1.0, 1.0)({"b": 0.5, "a": 0.5}, {"a": 1.0, "z": 0.0})
    assert list(joint) == ["b", "a"]
    assert 0.0 < joint["b"] < 0.001  # left out is not ruled out


@given(weights, weights, tables, tables)
def test_it_is_a_distribution(a, b, probe, expert):
    joint = OpinionPool(a, b)(probe, expert)
    assert sum(joint.values()) == pytest.approx(1.0, abs=1e-5)
    assert min(joint.values()) >= 0

from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.heads import MixtureHead, unit
from moe_router.training.feedback.head_update import HALF_ROWS, HeadRows, HeadRun, update_head
from tests.unit.moe_router.gating.made import CLASSES, axis, head_weights
from tests.unit.moe_router.training.feedback_world import NOVEL, noisy

MOOD = axis(4)
"""What an open class is described by."""


def rows(head: MixtureHead, *pairs, text=None) -> HeadRows:
    shares = np.stack([head.shares(text, target) for _, target in pairs])
    return HeadRows(np.stack([v for v, _ in pairs]), shares, np.ones(len(pairs), np.float32))


def anchor():
    rng = np.random.default_rng(0)
    return np.stack([noisy(axis(i), rng) for i in range(len(CLASSES) + 1) for _ in range(20)])


def test_prior_logits_and_columns_are_those_of_the_head():
    """Together with the trained weights they give the distribution that the head gives."""
    prototypes = {"a/x": np.stack([axis(0), axis(6)]), "c/new": axis(7)[None]}
    weights = head_weights(opens={})
    head = MixtureHead(weights, (*CLASSES, "c/new"), prototypes)
    vector = unit(axis(7) + axis(0))  # near the new class, but not its phrasing word for word
    logits = head.prior_logits(vector[None])[0]
    logits[:4] += weights.arrays["describe.weight"] @ vector + weights.arrays["describe.bias"]
    p = np.exp(logits - logits.max())
    p = dict(zip(head.columns, p / p.sum(), strict=True))
    found = head(vector, None)
    assert found.none == pytest.approx(p.pop("none"), abs=1e-5)
    assert found.as_dict() == pytest.approx(p, abs=1e-5)


def test_shares_say_where_an_open_column_goes():
    head = MixtureHead(head_weights(), CLASSES, {})
    assert head.columns == (*CLASSES, "none", "generic/mood")
    assert head.shares(None, "a/x").tolist() == [1, 0, 0, 0, 0.5]
    assert head.shares(axis(2), "a/x") == pytest.approx([1, 0, 0, 0, 0.0], abs=1e-6)
    assert head.shares(axis(2), "b/z") == pytest.approx([0, 0, 1, 0, 1.0], abs=1e-6)


def test_no_rows_change_nothing():
    weights = head_weights()
    head = MixtureHead(weights, CLASSES, {})
    empty = HeadRows(np.zeros((0, 16), np.float32), np.zeros((0, 5), np.float32), np.zeros(0, np.float32))
    assert update_head(weights, head, empty, anchor(), HeadRun()) is weights


def test_an_open_request_whose_text_says_the_task_is_no_news():
    """The mixture's likelihood is 1 already: the open column need not give way to the task's own."""
    weights = head_weights(sharpness=12.0)
    head = MixtureHead(weights, CLASSES, {})
    told = rows(head, *[(MOOD, "b/z")] * 50, text=axis(2))
    changed = MixtureHead(update_head(weights, head, told, anchor(), HeadRun()), CLASSES, {})
    assert changed(MOOD, None).open > 0.9
    assert changed(MOOD, axis(0)).of("a/x") > 0.9


def test_rows_that_the_head_knows_already_leave_it_as_it_was():
    """The anchor is not fitted once more: where feedback is no news, nothing moves."""
    weights = head_weights(sharpness=40.0)
    head = MixtureHead(weights, CLASSES, {})
    told = rows(head, *[(axis(i), name) for i, name in enumerate(CLASSES)] * 20)
    changed = update_head(weights, head, told, anchor(), HeadRun())
    for name in ("describe.weight", "describe.bias"):
        assert changed.arrays[name] == pytest.approx(weights.arrays[name], abs=1e-3)


@pytest.mark.parametrize("target", [*CLASSES, "c/new"])
def test_many_rows_teach_a_new_word_for_any_task_and_keep_the_old_ones(target):
    weights = head_weights(sharpness=12.0)
    names, prototypes = (*CLASSES, "c/new"), {"c/new": axis(7)[None]}
    head = MixtureHead(weights, names, prototypes)
    told = rows(head, *[(NOVEL, target)] * int(4 * HALF_ROWS))
    changed = MixtureHead(update_head(weights, head, told, anchor(), HeadRun()), names, prototypes)
    before, after = head(NOVEL, None).of(target), changed(NOVEL, None).of(target)
    assert after > max(0.6, before)
    for index, name in enumerate(CLASSES):
        assert changed(axis(index), None).of(name) > 0.9

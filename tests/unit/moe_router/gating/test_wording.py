"""What the words say beside the encoder, on weights made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.heads import Distribution
from moe_router.gating.ngrams import BUCKETS, IDENTITY, buckets
from moe_router.gating.weights import Weights, save
from moe_router.gating.wording import FLOOR, Wording

CLASSES = ("a/x", "a/y", "none")
NAMES = ("a/x", "a/y")


def weights(**changed: object) -> Weights:
    weight = np.zeros((BUCKETS, 3), np.float32)
    weight[buckets("stars"), 0], weight[buckets("mood"), 1] = 6.0, 6.0
    meta = {
        "encoder": IDENTITY, "hidden": BUCKETS, "classes": list(CLASSES), "weight": 1.0, "temperature": 1.0,
    }  # fmt: skip
    arrays = {"weight": weight, "bias": np.zeros(3, np.float32)}
    arrays |= {k: v for k, v in changed.items() if k == "bias"}
    meta |= {k: v for k, v in changed.items() if k != "bias"}
    return Weights(arrays, {k: v for k, v in meta.items() if v is not None})


def told(*probabilities: float, names: tuple[str, ...] = NAMES, mass: float = 0.0) -> Distribution:
    known = np.array(probabilities, np.float32)
    return Distribution(names, known, float(1 - known.sum()), mass)


def test_words_tip_what_the_encoder_leaves_undecided():
    wording = Wording(weights())
    undecided = told(0.45, 0.45)
    assert wording("stars", undecided).of("a/x") > 0.8
    assert wording("mood", undecided).of("a/y") > 0.8


def test_words_do_not_overrule_what_the_encoder_is_sure_of():
    sure = told(0.995, 0.004)
    assert Wording(weights())("mood", sure).of("a/x") > 0.8
    bound = np.log((1 - FLOOR + FLOOR / 3) / (FLOOR / 3))
    opinion = Wording(weights()).opinion("mood mood mood", NAMES)
    assert np.ptp(opinion) <= bound + 1e-5


def test_what_the_text_decides_stays_with_the_text():
    left_open = told(0.9, 0.05, mass=1.0)
    found = Wording(weights())("mood", left_open)
    assert found.probabilities == pytest.approx(left_open.probabilities, abs=1e-4)
    assert found.open == 1.0


def test_a_new_task_keeps_its_odds_against_the_likeliest():
    names = (*NAMES, "b/new")
    before = told(0.3, 0.1, 0.5, names=names)
    after = Wording(weights())("stars", before)
    assert after.of("b/new") / after.of("a/x") == pytest.approx(0.5 / 0.3, rel=1e-3)
    assert after.of("a/y") < before.of("a/y")


def test_what_asks_for_a_task_that_is_not_on_offer_asks_for_none():
    before = told(0.5, names=("a/y",))
    assert Wording(weights())("stars", before).none > 0.8


@settings(deadline=None)
@given(st.text(min_size=1), st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1))
def test_the_joined_distribution_is_one(text, given_, mass):
    share = max(1.0, sum(given_))
    found = Wording(weights())(text, told(*(p / share for p in given_), mass=mass))
    assert found.probabilities.min() >= 0
    assert float(found.probabilities.sum()) + found.none == pytest.approx(1.0, abs=1e-5)


def test_a_folder_without_them_has_no_second_opinion(tmp_path: Path):
    assert Wording.load(tmp_path) is None
    save(tmp_path, "wording", weights())
    loaded = Wording.load(tmp_path)
    assert loaded is not None
    assert loaded.classes == CLASSES


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": None},
        {"classes": ["a/x", "a/y", "a/z"]},
        {"bias": np.zeros(2, np.float32)},
        {"temperature": "?"},
    ],
)
def test_weights_that_do_not_fit_are_refused(changed):
    with pytest.raises(ModelAssetError, match="wording"):
        Wording(weights(**changed))

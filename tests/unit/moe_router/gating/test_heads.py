from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.heads import MixtureHead, softmax, unit
from moe_router.gating.weights import Floats, Weights
from tests.unit.moe_router.gating.made import (
    CLASSES,
    FREE_AXIS,
    HIDDEN,
    NONE_AXIS,
    OPEN_AXIS,
    OPENS,
    axis,
    head_weights,
)


def head(names: tuple[str, ...] = CLASSES, prototypes: dict[str, Floats] | None = None, **kw) -> MixtureHead:
    return MixtureHead(head_weights(**kw), names, prototypes or {})


class TestWhatDecides:
    @pytest.mark.parametrize("index", range(3))
    @pytest.mark.parametrize("text", [None, *range(3)])
    def test_the_description_does_whatever_the_text_says(self, index: int, text: int | None) -> None:
        found = head()(axis(index), None if text is None else axis(text))
        assert found.as_dict()[CLASSES[index]] == pytest.approx(1.0, abs=1e-6)
        assert found.none == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize("index", range(3))
    def test_the_text_does_where_there_is_no_description(self, index: int) -> None:
        found = head()(None, axis(index))
        assert found.as_dict()[CLASSES[index]] == pytest.approx(1.0, abs=1e-6)
        assert found.open == 1.0

    def test_neither_is_for_nobody(self) -> None:
        found = head()(None, None)
        assert (found.none, found.probabilities.tolist()) == (1.0, [0.0, 0.0, 0.0])

    def test_what_is_described_as_none_is_none(self) -> None:
        assert head()(axis(NONE_AXIS), axis(0)).none == pytest.approx(1.0, abs=1e-6)


class TestOpenClasses:
    @pytest.mark.parametrize(("text", "expected"), [(0, "a/x"), (1, "a/x"), (2, "b/z")])
    def test_the_text_shares_them_out(self, text: int, expected: str) -> None:
        found = head()(axis(OPEN_AXIS), axis(text))
        assert found.as_dict()[expected] == pytest.approx(1.0, abs=1e-5)
        assert found.open == pytest.approx(1.0, abs=1e-6)

    def test_without_a_text_they_are_shared_evenly_between_their_targets(self) -> None:
        found = head()(axis(OPEN_AXIS), None)
        assert found.as_dict() == pytest.approx({"a/x": 0.5, "a/y": 0.0, "b/z": 0.5}, abs=1e-6)

    def test_a_target_that_the_registry_lacks_goes_to_none(self) -> None:
        found = head(("a/x", "a/y"))(axis(OPEN_AXIS), axis(2))
        assert found.none == pytest.approx(1.0, abs=1e-5)

    def test_a_task_may_bear_an_open_class_s_name(self) -> None:
        named = head((*CLASSES, "generic/mood"), {"generic/mood": axis(FREE_AXIS)[None]})
        assert named(axis(FREE_AXIS), None).as_dict()["generic/mood"] == pytest.approx(1.0, abs=1e-4)
        found = named(axis(OPEN_AXIS), axis(2))
        assert found.as_dict()["b/z"] == pytest.approx(1.0, abs=1e-4)
        assert total(found) == pytest.approx(1.0, abs=1e-5)


class TestClassesInUse:
    def test_a_masked_class_goes_to_none_and_not_to_its_neighbours(self) -> None:
        found = head(("a/x", "b/z"))(axis(1), axis(1))
        assert found.names == ("a/x", "b/z")
        assert found.none == pytest.approx(1.0, abs=1e-6)
        assert head(("a/x", "b/z"))(None, axis(1)).none == pytest.approx(1.0, abs=1e-6)

    def test_an_unseen_class_is_found_by_its_prototype(self) -> None:
        own = head((*CLASSES, "c/new"), {"c/new": np.stack([axis(FREE_AXIS), axis(FREE_AXIS + 1)])})
        found = own(unit(axis(FREE_AXIS) + axis(FREE_AXIS + 1)), axis(0))
        assert found.as_dict()["c/new"] == pytest.approx(1.0, abs=1e-3)
        assert own(axis(0), None).as_dict()["a/x"] == pytest.approx(1.0, abs=1e-3)

    def test_what_repeats_one_phrasing_is_for_the_unseen_class_whatever_their_mean(self) -> None:
        apart = unit(np.stack([axis(NONE_AXIS) + axis(FREE_AXIS), -axis(FREE_AXIS), axis(FREE_AXIS + 1)]))
        own = head((*CLASSES, "c/new"), {"c/new": apart})
        asked = own(apart[0], None)
        assert asked.as_dict()["c/new"] == pytest.approx(1.0, abs=1e-6)
        assert asked.none == pytest.approx(0.0, abs=1e-6)
        assert asked.open == pytest.approx(0.0, abs=1e-6)

    def test_what_repeats_the_phrasing_of_two_is_for_both(self) -> None:
        phrasing = axis(FREE_AXIS)[None]
        own = head(
            (*CLASSES, "c/en", "c/de", "c/fr"), {"c/en": phrasing, "c/de": phrasing, "c/fr": -phrasing}
        )
        found = own(phrasing[0], None).as_dict()
        assert (found["c/en"], found["c/de"]) == (pytest.approx(0.5, abs=1e-3), pytest.approx(0.5, abs=1e-3))
        assert sum(found.values()) <= 1 + 1e-6

    def test_between_the_same_and_another_the_phrasing_has_a_share(self) -> None:
        phrasing = axis(FREE_AXIS)
        own = head((*CLASSES, "c/new"), {"c/new": np.stack([phrasing, -phrasing])})
        found = []
        for similarity in (0.79, 0.85, 0.91):
            asked = similarity * phrasing + np.sqrt(1 - similarity**2) * axis(NONE_AXIS)
            told = own(np.asarray(asked, np.float32), axis(0))
            assert told.none + told.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
            found.append(told.as_dict()["c/new"])
        assert found == pytest.approx([0.0, 0.5, 1.0], abs=0.02)

    def test_one_without_a_prototype_gets_nothing(self) -> None:
        for prototypes in ({}, {"c/new": np.zeros((0, HIDDEN), np.float32)}):
            found = head((*CLASSES, "c/new"), prototypes)(axis(FREE_AXIS), None)
            assert found.as_dict()["c/new"] < 1e-6

    def test_a_known_class_is_helped_by_its_prototype(self) -> None:
        described = unit(axis(0) * 0.02 + axis(FREE_AXIS))
        without = head(sharpness=2.0)(described, None).as_dict()["a/x"]
        helped = head(CLASSES, {"a/x": axis(FREE_AXIS)[None]}, sharpness=2.0)(described, None).as_dict()[
            "a/x"
        ]
        assert helped > without + 0.1

    def test_the_names_keep_the_registry_s_order(self) -> None:
        assert head(("b/z", "c/new", "a/x"))(axis(0), None).names == ("b/z", "c/new", "a/x")


def total(found) -> float:
    return float(found.probabilities.sum()) + found.none


VECTORS = st.integers(0, 2**32 - 1).map(
    lambda seed: unit(np.random.default_rng(seed).normal(size=HIDDEN).astype(np.float32))
)


@settings(deadline=None, max_examples=200)
@given(
    description=st.none() | VECTORS,
    text=st.none() | VECTORS,
    names=st.lists(st.sampled_from([*CLASSES, "c/new", "c/other", "generic/mood"]), min_size=1, unique=True),
    prototypes=st.dictionaries(st.sampled_from(["a/x", "c/new"]), VECTORS.map(lambda v: v[None])),
    seed=st.integers(0, 1000),
    temperature=st.floats(0.05, 20),
)
def test_probabilities_sum_to_1(description, text, names, prototypes, seed, temperature) -> None:
    rng = np.random.default_rng(seed)
    base = head_weights(meta={"temperature": temperature, "read_temperature": 1 / temperature})
    arrays = {name: rng.normal(0, 3, a.shape).astype(np.float32) for name, a in base.arrays.items()}
    found = MixtureHead(replace(base, arrays=arrays), names, prototypes)(description, text)
    assert total(found) == pytest.approx(1.0, abs=1e-5)
    assert (found.probabilities >= 0).all()
    assert found.none >= 0
    assert -1e-6 <= found.open <= 1 + 1e-6


@pytest.mark.parametrize(
    "lacking", ["describe.weight", "describe.bias", "read.weight", "read.bias", "centre"]
)
def test_weights_without_an_array_are_refused(lacking: str) -> None:
    weights = head_weights()
    arrays = {name: array for name, array in weights.arrays.items() if name != lacking}
    with pytest.raises(ModelAssetError, match=lacking):
        MixtureHead(Weights(arrays, weights.meta), CLASSES, {})


@pytest.mark.parametrize("lacking", ["classes", "opens", "temperature", "read_temperature", "match"])
def test_weights_without_a_description_are_refused(lacking: str) -> None:
    weights = head_weights()
    meta = {key: value for key, value in weights.meta.items() if key != lacking}
    with pytest.raises(ModelAssetError, match=lacking):
        MixtureHead(Weights(weights.arrays, meta), CLASSES, {})


@pytest.mark.parametrize(
    "arrays",
    [
        {"describe.weight": np.zeros((4, HIDDEN), np.float32)},
        {"describe.weight": np.zeros((5, HIDDEN + 1), np.float32)},
        {"describe.bias": np.zeros(4, np.float32)},
        {"read.weight": np.zeros((2, HIDDEN), np.float32)},
        {"read.bias": np.zeros(2, np.float32)},
        {"centre": np.zeros(HIDDEN - 1, np.float32)},
    ],
)
def test_weights_of_other_dimensions_are_refused(arrays: dict[str, Floats]) -> None:
    weights = head_weights()
    with pytest.raises(ModelAssetError, match="other dimensions"):
        MixtureHead(Weights({**weights.arrays, **arrays}, weights.meta), CLASSES, {})


def test_a_call_changes_nothing() -> None:
    weights = head_weights(opens=OPENS)
    own = MixtureHead(weights, CLASSES, {"a/x": axis(5)[None]})
    before = {name: array.copy() for name, array in weights.arrays.items()}
    first = own(axis(0), axis(1))
    assert own(axis(0), axis(1)).as_dict() == first.as_dict()
    assert all((weights.arrays[name] == before[name]).all() for name in before)


def test_softmax_does_not_overflow_and_unit_does_not_divide_by_zero() -> None:
    assert softmax(np.array([1e4, 0.0, -1e4], np.float32)).tolist() == [1.0, 0.0, 0.0]
    assert unit(np.zeros((2, 3), np.float32)).tolist() == [[0.0] * 3] * 2

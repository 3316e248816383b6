from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe_router.training.augment import as_json, augmented, mistyped, shortened, varied, without_marks
from moe_router.training.phrasings import load_phrasings


def test_copies_stay_in_their_family_and_split():
    originals = [p for p in load_phrasings() if p.split == "train" and p.language == "en"]
    families = {p.family: (p.target, p.split) for p in originals}
    copies = augmented(originals, 0)[len(originals) :]
    assert copies
    assert all((c.target, c.split) == families[c.family] for c in copies)
    assert {c.style for c in copies} == {"typo", "json"}


def test_the_same_seed_gives_the_same_copies():
    originals = load_phrasings()[:50]
    assert augmented(originals, 3) == augmented(originals, 3)


@given(st.text(min_size=1, max_size=200), st.integers(0, 99))
def test_slips_change_a_small_part(text, seed):
    slipped = mistyped(text, np.random.default_rng(seed))
    assert slipped
    assert abs(len(slipped) - len(text)) <= max(2, len(text))


@given(st.text(min_size=1, max_size=80), st.integers(0, 99))
def test_json_copies_are_json(text, seed):
    parsed = json.loads(as_json(text, np.random.default_rng(seed)))
    assert len(parsed) == 1
    value = next(iter(parsed.values()))
    if isinstance(value, dict):
        value = next(iter(value.values()))
    assert value in text or "_" in value or value == value.lower()


def test_a_rendering_says_the_same():
    original = next(p for p in load_phrasings() if p.style == "order" and len(p.text.split()) > 8)
    seen = {varied(original, np.random.default_rng(seed)) for seed in range(40)}
    assert original.text in seen
    assert len(seen) > 8
    assert all(len(text) < 2 * len(original.text) + 40 for text in seen)


def test_marks_are_left_out_of_latin_letters_alone():
    assert without_marks("Où est l'Été ?") == "ou est l'ete "
    assert without_marks("Что это?") == "что это"
    assert without_marks("???") == "???"


def test_short_texts_stay_whole():
    rng = np.random.default_rng(0)
    assert shortened("one two three four", rng) == "one two three four"
    assert len(shortened("w " * 40, rng).split()) < 40

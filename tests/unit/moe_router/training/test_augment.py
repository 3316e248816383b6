from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe_router.training.augment import as_json, augmented, mistyped
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
def test_a_slip_changes_few_characters(text, seed):
    slipped = mistyped(text, np.random.default_rng(seed))
    assert (
        abs(len(slipped) - len(text))
        <= max(1, int(len(text) * 0.07)) + text.lower().count("i̇") + len(text) // 2
    )


@given(st.text(min_size=1, max_size=80), st.integers(0, 99))
def test_json_copies_are_json(text, seed):
    parsed = json.loads(as_json(text, np.random.default_rng(seed)))
    assert len(parsed) == 1
    assert next(iter(parsed.values())) in text

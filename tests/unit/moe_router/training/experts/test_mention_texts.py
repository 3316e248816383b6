"""Posts that mention a group: every sentence can be filled, and none stands for another label."""

from __future__ import annotations

import re
from collections import Counter

from moe_router.training.experts.examples import Row
from moe_router.training.experts.mention_texts import FILLINGS, generate, groups, templates

LANGUAGES = {"ar", "de", "es", "fr", "hi", "it", "nl", "pl", "pt", "zh"}
ROWS = [Row("x", language, "hateful") for language in sorted(LANGUAGES)]


def test_every_slot_has_names_and_every_form_the_same_groups() -> None:
    names = groups()
    for language, _, text in templates():
        slots = re.findall(r"\{(\w+)\}", text)
        assert len(slots) <= 1
        assert set(slots) <= set(names[language])
    for forms in names.values():
        assert {len(own) for own in forms.values()} == {12}


def test_every_language_has_as_many_sentences_of_both_labels() -> None:
    counts = Counter((language, label) for language, label, _ in templates())
    assert counts == {
        (language, label): count
        for language in LANGUAGES
        for label, count in (("non-hateful", 48), ("hateful", 28))
    }
    assert len({(language, text) for language, _, text in templates()}) == counts.total()


def test_texts_are_filled_and_each_is_another() -> None:
    made = generate(ROWS)
    with_slot = sum("{" in text for *_, text in templates())
    assert len(made) == FILLINGS * with_slot + len(templates()) - with_slot
    assert not any("{" in row.text for row in made)
    assert len({(row.language, row.text.lower()) for row in made}) == len(made)


def test_only_languages_of_the_rows_are_made() -> None:
    assert {row.language for row in generate(ROWS[:2])} == {"ar", "de"}


def test_a_seed_makes_the_same_texts_again() -> None:
    assert generate(ROWS, 1) == generate(ROWS, 1) != generate(ROWS, 2)

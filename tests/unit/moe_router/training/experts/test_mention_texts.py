"""Posts that mention a group: every sentence can be filled, and none stands for another label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from moe_router.training.experts import mention_texts
from moe_router.training.experts.examples import Row
from moe_router.training.experts.mention_texts import (
    FILLINGS,
    SLURS,
    generate,
    groups,
    naming,
    templates,
    training_rows,
)

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


def test_every_language_has_as_many_sentences_of_both_labels_and_hindi_in_both_scripts() -> None:
    counts = Counter((language, label) for language, label, _ in templates())
    assert counts == {
        (language, label): count * (2 if language == "hi" else 1)
        for language in LANGUAGES
        for label, count in (("non-hateful", 48), ("hateful", 28))
    }
    assert len({(language, text) for language, _, text in templates()}) == counts.total()
    hindi = [text for language, _, text in templates() if language == "hi"]
    assert sum(any("\u0900" <= letter <= "\u097f" for letter in text) for text in hindi) == len(hindi) / 2


def test_a_sentence_for_a_slur_has_one_slot_and_every_language_as_many() -> None:
    assert all(text.count("{S}") == 1 for *_, text in naming())
    counts = Counter((language, label) for language, label, _ in naming())
    labels = (("hateful", 20), ("non-hateful", 16))
    assert counts == {(language, label): n for language in LANGUAGES for label, n in labels}


def test_slurs_that_the_rows_hold_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"qqq{letter}" for letter in "abcdefghij"]

    def found(rows: Sequence[Row]) -> list[str]:
        return words if rows[0].language == "nl" else []

    monkeypatch.setattr(mention_texts, "slurs", found)
    monkeypatch.setattr(mention_texts, "MISTYPED", 0)
    made = [row for row in generate(ROWS) if "qq" in row.text.lower()]
    assert {row.language for row in made} == {"nl"}
    assert Counter(row.label for row in made) == {
        "hateful": 20 * SLURS["hateful"],
        "non-hateful": 16 * SLURS["non-hateful"],
    }


def test_a_part_of_the_rows_is_typed_in_haste_and_keeps_its_label() -> None:
    rows = [
        Row(f"Some sentence of the data, number {i}.", "en", ("hateful", "non-hateful")[i % 2])
        for i in range(400)
    ]
    made = training_rows(rows)
    assert [row.label for row in made] == [row.label for row in rows]
    assert 60 < sum(a.text != b.text for a, b in zip(made, rows, strict=True)) < 140
    assert made == training_rows(rows)


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

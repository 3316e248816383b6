"""Texts made around a dataset's entities: every value stands where its offsets say."""

from __future__ import annotations

import pytest
from stdnum import iban

from moe_router.contracts import Entity
from moe_router.training.experts import entity_texts
from moe_router.training.experts.entity_texts import choosing, generate, templates
from moe_router.training.experts.examples import Row


def row(text: str, **values: str) -> Row:
    """A text with these values, each of the type that names it."""
    found = sorted((text.index(value), kind, value) for kind, value in values.items())
    entities = [
        Entity(type=kind, start=at, end=at + len(value), value=value, confidence=1.0)
        for at, kind, value in found
    ]
    return Row(text, "en", entities=tuple(entities))


TYPES = (
    "PERSON", "EMAIL", "PHONE", "ADDRESS", "LOCATION", "CREDIT_CARD", "IBAN", "DATE", "ORG", "URL",
    "IP_ADDRESS", "ID", "AGE", "TITLE", "NRP",
)  # fmt: skip
ROWS = [
    row("Ada Lovelace lives in İzmir.", PERSON="Ada Lovelace", LOCATION="İzmir"),
    row("Mrs. Grace Hopper of Acme Ltd.", TITLE="Mrs.", PERSON="Grace Hopper", ORG="Acme Ltd"),
    row("Send it to 12 Main Street", ADDRESS="12 Main Street"),
    row("Card 4111111111111111, bob@example.org", CREDIT_CARD="4111111111111111", EMAIL="bob@example.org"),
    row("A Dutch site: https://example.org/", NRP="Dutch", URL="https://example.org/"),
]


def test_values_stand_where_the_offsets_say_and_do_not_overlap() -> None:
    made = generate(ROWS)
    assert len(made) > 3 * len(templates())
    for one in [*made, *choosing(ROWS)]:
        end = 0
        for entity in one.entities:
            assert one.text[entity.start : entity.end] == entity.value
            assert entity.start >= end
            end = entity.end
        assert "{" not in one.text


def test_every_slot_of_a_template_is_filled_with_its_type() -> None:
    types = {entity.type for one in generate(ROWS) for entity in one.entities}
    assert {"PERSON", "TITLE", "ADDRESS", "DATE", "AGE", "PHONE", "ID", "IBAN", "IP_ADDRESS"} <= types
    assert not types & {"FIRST", "LAST", "HON", "JOB", "STREET", "YEAR"}


def test_a_value_that_a_sentence_names_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ("zh", "{PERSON:王小明}{TITLE:先生}住在{LOCATION:成都}。")
    monkeypatch.setattr(entity_texts, "templates", lambda: [named])
    whole = next(one for one in generate(ROWS) if one.text == "王小明先生住在成都。")
    assert [(e.type, e.start, e.end, e.value) for e in whole.entities] == [
        ("PERSON", 0, 3, "王小明"), ("TITLE", 3, 5, "先生"), ("LOCATION", 7, 9, "成都"),
    ]  # fmt: skip


def test_what_chooses_trains_nothing() -> None:
    trained = {text for _, text in templates()} | {one.text.lower() for one in generate(ROWS)}
    every = [Entity(type=kind, start=0, end=1, value="x", confidence=1.0) for kind in TYPES]
    rows = choosing([Row("x", "en", entities=tuple(every))])
    assert len(rows) > 100
    assert 0 < len(choosing(ROWS[:1])) < len(rows), "a dataset may lack a type"
    assert not [row for row in rows if row.text.lower() in trained]
    assert len({row.language for row in rows}) > 5
    known = {e.type for row in rows for e in row.entities}
    assert {"PERSON", "ADDRESS", "IBAN", "IP_ADDRESS"} <= known


def test_made_account_numbers_pass_their_checksum() -> None:
    numbers = {e.value.upper() for one in generate(ROWS) for e in one.entities if e.type == "IBAN"}
    assert numbers
    assert all(iban.is_valid(number, check_country=False) for number in numbers)


def test_sentences_with_types_that_the_dataset_lacks_are_left_out() -> None:
    made = generate(ROWS[:1])
    assert any(one.language == "zh" for one in made)
    assert "ORG" not in {entity.type for one in made for entity in one.entities}


def test_a_seed_makes_the_same_texts_again() -> None:
    assert generate(ROWS, 1) == generate(ROWS, 1) != generate(ROWS, 2)

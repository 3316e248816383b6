from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.contracts import Entity
from moe_router.experts.engines.base import Decision
from moe_router.experts.extraction import Found, Grammar, Window, decoder, merged, windows_of, words_of
from moe_router.experts.scoring import Floats, log_softmax

TYPES = ("PERSON", "PHONE", "PLACE")


def encode(text: str) -> tuple[int, ...]:
    """One token a character: the finest tokenizer there is."""
    return tuple(map(ord, text))


GRAMMAR = Grammar.of(TYPES, encode)
Model = Callable[[str, tuple[int, ...]], Floats]


def run(text: str, window: Window, model: Model) -> tuple[Found, str]:
    """Decodes with a model that is given what was written so far; returns that too."""
    found, written = Found(), ""
    running = decoder(text, window, GRAMMAR, encode, found)
    asked: Decision | None = next(running, None)
    for _ in range(5000):
        if asked is None:
            return found, written
        written += "".join(map(chr, asked.feed))
        assert len(set(asked.choices)) == len(asked.choices) > 1
        try:
            asked = running.send(log_softmax(model(written, asked.choices)))
        except StopIteration:
            return found, written
    raise AssertionError("decoding does not end")


def writes(target: str) -> Model:
    """A model that wants to write exactly this."""

    def model(written: str, choices: tuple[int, ...]) -> Floats:
        assert target.startswith(written), f"{written!r} is not on the way to {target!r}"
        wanted = ord(target[len(written)])
        return np.array([5.0 if choice == wanted else 0.0 for choice in choices])

    return model


texts = st.text(st.sampled_from("ab 12.,()\n王小 ก😀'-@"), min_size=1, max_size=60)


@given(texts, st.integers(0, 2**16))
def test_whatever_a_model_wants_the_entities_are_sound(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for window in windows_of(text, size=12, overlap=3):
        found, _ = run(text, window, lambda _, choices: rng.normal(0, 2, len(choices)))
        place = 0
        for entity in found.entities:
            assert text[entity.start : entity.end] == entity.value
            assert place <= entity.start < entity.end <= window.end
            assert entity.type in TYPES
            assert 0 <= entity.confidence <= 1
            place = entity.end
        assert found.log_probability <= 0


@given(texts)
def test_windows_hold_every_word(text: str) -> None:
    held = {word for window in windows_of(text, size=7, overlap=2) for word in window.words}
    assert held == set(words_of(text))


def test_a_model_that_knows_finds_what_it_means() -> None:
    text = 'Call "Ann Lee" (Bonn) on 55 12, Ann.'
    [window] = windows_of(text)
    target = "- Ann Lee = PERSON\n- Bonn = PLACE\n- 55 12 = PHONE\n- Ann = PERSON\n- END"
    found, _ = run(text, window, writes(target))
    assert [(e.value, e.type, e.start) for e in found.entities] == [
        ("Ann Lee", "PERSON", 6),
        ("Bonn", "PLACE", 16),
        ("55 12", "PHONE", 25),
        ("Ann", "PERSON", 32),
    ]
    assert 0 < math.exp(found.log_probability) < 1


def test_a_script_without_spaces_is_cut_by_character() -> None:
    text = "我叫王小明，住在北京。"
    [window] = windows_of(text)
    found, _ = run(text, window, writes("- 王小明 = PERSON\n- 北京 = PLACE\n- END"))
    assert [(e.value, e.start, e.end) for e in found.entities] == [("王小明", 2, 5), ("北京", 8, 10)]


def test_a_word_that_begins_another_can_be_told_from_it() -> None:
    text = "Anna, Ann"
    [window] = windows_of(text)
    longer, _ = run(text, window, writes("- Anna = PERSON\n- END"))
    shorter, _ = run(text, window, writes("- Ann= PERSON\n- END".replace("=", " =")))
    assert [e.start for e in longer.entities] == [0]
    assert [e.start for e in shorter.entities] == [6]


def test_a_text_without_words_has_no_windows() -> None:
    assert windows_of(" \n\t") == []


def entity(kind: str, start: int, value: str, confidence: float) -> Entity:
    return Entity(type=kind, start=start, end=start + len(value), value=value, confidence=confidence)


def test_windows_are_merged_without_doubles_or_overlaps() -> None:
    text = "Ann Lee lives in Bonn"
    first = Found([entity("PERSON", 0, "Ann Lee", 0.6), entity("PLACE", 17, "Bonn", 0.4)])
    second = Found([entity("PERSON", 4, "Lee", 0.5), entity("PLACE", 17, "Bonn", 0.7)])
    assert merged(text, [first, second], TYPES) == [
        entity("PERSON", 0, "Ann Lee", 0.6),
        entity("PLACE", 17, "Bonn", 0.7),
    ]


def test_rules_stand_before_the_model_and_drop_what_breaks_them() -> None:
    text = "Mail ann@example.org or Bob"
    claims = Found([entity("PERSON", 5, "ann@example.org", 0.9), entity("EMAIL", 24, "Bob", 0.9)])
    [kept] = merged(text, [claims], ["PERSON", "EMAIL"])
    assert (kept.type, kept.value) == ("EMAIL", "ann@example.org")


@pytest.mark.parametrize(
    ("text", "cores"), [("(a-b),", ["a-b"]), ("O'Neil's", ["O'Neil's"]), ("ab12", ["ab12"])]
)
def test_words_lose_the_punctuation_around_them(text: str, cores: list[str]) -> None:
    assert [text[w.start : w.end] for w in words_of(text) if w.solid] == cores

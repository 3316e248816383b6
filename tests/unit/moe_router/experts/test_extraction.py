from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.contracts import Entity
from moe_router.experts.engines.base import Decision, NotANumberError
from moe_router.experts.extraction import (
    MAX_ENTITY_CHARS,
    MAX_ENTITY_WORDS,
    EncodeWord,
    Found,
    Grammar,
    answer,
    decoder,
    merged,
    most_fed,
)
from moe_router.experts.formats import find
from moe_router.experts.scoring import Floats, log_softmax
from moe_router.experts.text_words import Window, windows_of

TYPES = ("PERSON", "PHONE", "PLACE")


def encode(text: str) -> tuple[int, ...]:
    """One token a character: the finest tokenizer there is."""
    return tuple(map(ord, text))


GRAMMAR = Grammar.of(TYPES, encode)
Model = Callable[[str, tuple[int, ...]], Floats]


def run(
    text: str,
    window: Window,
    model: Model,
    found: Found | None = None,
    encode: EncodeWord = encode,
) -> tuple[Found, str]:
    """Decodes with a model that is given what was written so far; returns that too."""
    found, written = Found() if found is None else found, ""
    running = decoder(text, window, GRAMMAR, encode, found)
    asked: Decision | None = next(running, None)
    for _ in range(5000):
        if asked is None:
            return found, written
        written += "".join(map(chr, asked.feed))
        assert len(set(asked.choices)) == len(asked.choices) > 1
        try:
            scores = model(written, asked.choices)
            asked = running.send(scores if np.isneginf(scores).all() else log_softmax(scores))
        except StopIteration:
            return found, written
    raise AssertionError("decoding does not end")


def entities(text: str, found: Found) -> list[Entity]:
    return [
        entity(claim.type, claim.start, text[claim.start : claim.end], math.exp(claim.span + claim.kind))
        for claim in found.claims
    ]


def writes(target: str) -> Model:
    """A model that wants to write exactly this."""

    def model(written: str, choices: tuple[int, ...]) -> Floats:
        assert target.startswith(written), f"{written!r} is not on the way to {target!r}"
        wanted = ord(target[len(written)])
        return np.array([5.0 if choice == wanted else 0.0 for choice in choices])

    return model


texts = st.text(st.sampled_from("ab 12.,()\n王小 กี\u0301\u200b،😀'-@"), min_size=1, max_size=60)


@given(texts, st.integers(0, 2**16))
def test_whatever_a_model_wants_the_entities_are_sound(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for window in windows_of(text, size=12, overlap=3):
        found, _ = run(text, window, lambda _, choices: rng.normal(0, 2, len(choices)))
        place = 0
        for entity in entities(text, found):
            assert text[entity.start : entity.end] == entity.value
            assert place <= entity.start < entity.end <= window.end
            assert entity.type in TYPES
            assert 0 <= entity.confidence <= 1
            place = entity.end
        assert found.no_other <= 0


def test_a_model_that_knows_finds_what_it_means() -> None:
    text = 'Call "Ann Lee" (Bonn) on 55 12, Ann.'
    [window] = windows_of(text)
    target = "- Ann Lee = PERSON\n- Bonn = PLACE\n- 55 12 = PHONE\n- Ann = PERSON\n- END"
    found, _ = run(text, window, writes(target))
    assert [(e.value, e.type, e.start) for e in entities(text, found)] == [
        ("Ann Lee", "PERSON", 6),
        ("Bonn", "PLACE", 16),
        ("55 12", "PHONE", 25),
        ("Ann", "PERSON", 32),
    ]
    assert all(0 < e.confidence < 1 for e in entities(text, found))
    assert 0.9 < math.exp(found.no_other) < 1


@pytest.mark.parametrize(
    ("ann", "bob", "begins", "span", "no_other"),
    [(0.6, 0.3, 0, 0.6, 1.0), (0.45, 0.5, 4, 0.5 / 0.55, 0.55), (0.3, 0.2, None, None, 0.5)],
)
def test_what_might_have_begun_before_an_entity_does_not_speak_against_it(
    ann: float, bob: float, begins: int | None, span: float | None, no_other: float
) -> None:
    def model(written: str, choices: tuple[int, ...]) -> Floats:
        if written.endswith("- ") and "=" not in written:
            chances = {"A": ann, "B": bob, "E": 1 - ann - bob}
            return np.log([chances[chr(choice)] for choice in choices])
        sure = "=" if "=" not in written else "E" if written.endswith("- ") else "P"
        return np.array([0.0 if chr(choice) == sure else -60.0 for choice in choices])

    text = "Ann Bob"
    [window] = windows_of(text)
    found, _ = run(text, window, model)
    assert [claim.start for claim in found.claims] == ([] if begins is None else [begins])
    assert [math.exp(claim.span) for claim in found.claims] == ([] if span is None else [pytest.approx(span)])
    assert math.exp(found.no_other) == pytest.approx(no_other)


@pytest.mark.parametrize(
    ("chances", "claimed", "span", "no_other"),
    [
        ({"=": 0.6, "B": 0.1, "L": 0.3}, (0, 3), 0.6, 1.0),
        ({"=": 0.3, "B": 0.3, "L": 0.4}, (8, 15), 1.0, 0.4),
    ],
)
def test_who_writes_a_word_that_stands_there_twice_means_the_first(
    chances: dict[str, float], claimed: tuple[int, int], span: float, no_other: float
) -> None:
    def model(written: str, choices: tuple[int, ...]) -> Floats:
        if written == "- Ann ":  # ends, or goes on with the first's or the second's next word
            return np.log([chances[chr(choice)] for choice in choices])
        sure = "A" if written == "- " else "=" if "=" not in written else "PE"
        return np.array([0.0 if chr(choice) in sure else -60.0 for choice in choices])

    text = "Ann Bo, Ann Lee"
    [window] = windows_of(text)
    found, _ = run(text, window, model)
    [claim] = found.claims
    assert (claim.start, claim.end) == claimed
    assert math.exp(claim.span) == pytest.approx(span)
    assert math.exp(found.no_other) == pytest.approx(no_other)


def test_decoding_anew_leaves_nothing_of_the_attempt_before() -> None:
    text = "Ann Lee in Bonn"
    [window] = windows_of(text)
    once, _ = run(text, window, writes("- Ann Lee = PERSON\n- Bonn = PLACE\n- END"))
    found = Found()
    broken = decoder(text, window, GRAMMAR, encode, found)
    asked: Decision | None = next(broken)
    while asked is not None and not found.claims:
        asked = broken.send(log_softmax(np.zeros(len(asked.choices))))
    found.no_other = -1.0
    run(text, window, writes("- Ann Lee = PERSON\n- Bonn = PLACE\n- END"), found)
    assert found == once


def test_what_is_not_a_number_is_told() -> None:
    text = "Ann Lee"
    [window] = windows_of(text)
    with pytest.raises(NotANumberError):
        run(text, window, lambda _, choices: np.full(len(choices), math.nan))


def test_where_nothing_is_told_the_list_ends_and_is_unsure() -> None:
    text = "Ann Lee in Bonn"
    [window] = windows_of(text)
    known = writes("- Ann Lee = PERSON\n- Bonn = PLACE\n- END")

    def tells_no_place(written: str, choices: tuple[int, ...]) -> Floats:
        if written.endswith("\n- "):
            return np.full(len(choices), -math.inf)
        return known(written, choices)

    found, _ = run(text, window, tells_no_place)
    assert [e.value for e in entities(text, found)] == ["Ann Lee"]
    assert entities(text, found)[0].confidence > 0.9
    assert math.exp(found.no_other) < 1e-6


def test_a_script_without_spaces_is_cut_by_character() -> None:
    text = "我叫王小明，住在北京。"
    [window] = windows_of(text)
    found, _ = run(text, window, writes("- 王小明 = PERSON\n- 北京 = PLACE\n- END"))
    assert [(e.value, e.start, e.end) for e in entities(text, found)] == [("王小明", 2, 5), ("北京", 8, 10)]


def test_a_word_that_begins_another_can_be_told_from_it() -> None:
    text = "Anna, Ann"
    [window] = windows_of(text)
    longer, _ = run(text, window, writes("- Anna = PERSON\n- END"))
    shorter, _ = run(text, window, writes("- Ann= PERSON\n- END".replace("=", " =")))
    assert [claim.start for claim in longer.claims] == [0]
    assert [claim.start for claim in shorter.claims] == [6]


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("Ann Lee\n\nMail: AnnLee@example.org", "Ann Lee", "PERSON"),  # the address begins as the name does
        ("Ann Lee\n\nMail: AnnLee@example.org", "AnnLee@example.org", "PERSON"),
        ("Ann Roe, Ann Lee", "Ann Lee", "PERSON"),  # the other Ann comes first
        ("Ann = Bob", "Ann", "PERSON"),  # the text holds the sign that closes a value
        ("The END of Bonn", "Bonn", "PLACE"),
        ("The END of Bonn", "END of Bonn", "PLACE"),  # and the word that ends the list
        ("This is the END", "END", "PLACE"),
        ("It ENDED", "ENDED", "PLACE"),
        ("I met Ann's aunt", "Ann", "PERSON"),
        ("Bob:\"I'm Ann's aunt\".", "Bob", "PERSON"),
        ("(07) 55-Office", "(07) 55", "PHONE"),
        ("Lee/Ann", "Ann", "PERSON"),
        ("Nicosia (Greek) is hot", "Nicosia (Greek)", "PLACE"),
        ("Lee Inc. (Bonn)", "Lee Inc.", "PLACE"),
        ("l'avis d'E\u0301mile Zola", "E\u0301mile Zola", "PERSON"),
        ("Card 4556 **** **** 9855", "4556 **** **** 9855", "PHONE"),
    ],
)
def test_every_run_of_words_can_be_named(text: str, value: str, kind: str) -> None:
    [window] = windows_of(text)
    start = text.index(value)
    named = Entity(type=kind, start=start, end=start + len(value), value=value, confidence=1.0)
    target = "".join(map(chr, answer(text, window, [named], GRAMMAR, encode)))
    found, _ = run(text, window, writes(target))
    assert [(e.start, e.value, e.type) for e in entities(text, found)] == [(start, value, kind)]


def test_brackets_close_what_they_open() -> None:
    for text, values in (("(07 55", ["07", "07 55", "55"]), ("55)", ["55"]), ("(07)", ["(07)", "07"])):
        [window] = windows_of(text)
        assert sorted(namable(text, window)) == sorted(values)


def namable(text: str, window: Window) -> set[str]:
    """Every value that a decoder may name first."""
    left, values = [""], set()

    def explores(path: str) -> Model:
        """Goes along the path, then the first way on; the others, up to the first value's end, are left."""

        def model(written: str, choices: tuple[int, ...]) -> Floats:
            wanted = choices[0]
            if len(written) < len(path):
                wanted = ord(path[len(written)])
            elif " = " not in written:
                left.extend(written + chr(choice) for choice in choices[1:])
            return np.array([float(choice == wanted) for choice in choices])

        return model

    while left:
        found, _ = run(text, window, explores(left.pop()))
        values |= {entity.value for entity in entities(text, found)[:1]}
    return values


def test_a_run_has_no_more_words_than_the_bound() -> None:
    text = " ".join(["a"] * (MAX_ENTITY_WORDS + 6))
    [window] = windows_of(text)
    longest = " ".join(["a"] * MAX_ENTITY_WORDS)
    found, _ = run(text, window, lambda _, choices: np.array([-float(c == ord("=")) for c in choices]))
    assert entities(text, found)[0].value == longest


@pytest.mark.parametrize("at", range(0, 120, 7))
def test_a_long_address_without_spaces_is_told_whole_wherever_it_stands(at: int) -> None:
    address = "서울특별시강남구테헤란로백오십이번길이십칠강남파이낸스센터오층오백일호앞"
    assert len(address) > MAX_ENTITY_WORDS
    text = "王" * at + address + "王" * (150 - at)
    place = entity("PLACE", at, address, 1.0)
    found = []
    for window in windows_of(text):
        target = "".join(map(chr, answer(text, window, [place], GRAMMAR, encode)))
        if window.tells(place.start, place.end) or address not in target:
            found += entities(text, run(text, window, writes(target))[0])
    assert [(e.start, e.value) for e in merged([], found)] == [(at, address)]


@pytest.mark.parametrize("wanted", "(1a")
@pytest.mark.parametrize(
    "text",
    [
        "(1 " + ("x" * 255 + " ") * 21 + ")",
        " ".join(chr(ord("a") + k) * 200 + "'" for k in range(20)),
    ],
)
def test_what_a_decision_feeds_is_bounded_also_where_a_run_may_not_close(text: str, wanted: str) -> None:
    for window in windows_of(text):
        lengths = [0]

        def model(written: str, choices: tuple[int, ...], lengths: list[int] = lengths) -> Floats:
            lengths.append(len(written))
            return np.array([float(choice in (ord(wanted), ord(" "))) for choice in choices])

        run(text, window, model)
        assert max(b - a for a, b in pairwise(lengths)) <= MAX_ENTITY_CHARS + 10


def test_a_word_without_tokens_is_passed_over() -> None:
    text = "Ann \u200b Bob"
    [window] = windows_of(text)
    deaf: EncodeWord = lambda t: encode(t.replace(" \u200b", ""))  # noqa: E731
    found, _ = run(text, window, writes("- Ann Bob = PERSON\n- END\n"), encode=deaf)
    assert [(e.start, e.end) for e in entities(text, found)] == [(0, len(text))]


def test_of_equal_runs_the_first_is_named() -> None:
    text = "Ann, Bob, Ann, Bob"
    [window] = windows_of(text)
    found, _ = run(text, window, writes("- Bob = PERSON\n- Bob = PERSON\n- END\n"))
    assert [e.start for e in entities(text, found)] == [5, 15]


def test_an_endless_word_is_no_part_of_an_entity_and_never_fed() -> None:
    text = f"Ann {'x' * 30_000} Bob"
    [window] = windows_of(text)
    found, written = run(text, window, writes("- Ann = PERSON\n- Bob = PERSON\n- END"))
    assert [e.value for e in entities(text, found)] == ["Ann", "Bob"]
    assert len(written) < 100
    assert most_fed(text, window, encode) == 3
    across = entity("PERSON", 0, text, 0.5)
    assert answer(text, window, [across], GRAMMAR, encode) == encode("- END\n")


def test_an_entity_across_a_windows_edge_is_told_whole() -> None:
    words = [f"w{index}" for index in range(140)]
    words[94:98] = ["Ann", "Lee", "de", "Vega"]
    text = " ".join(words)
    first, second = windows_of(text)
    assert text[: first.end].endswith(" Ann Lee")
    # Where the first window ends it must close the value: that choice costs it nothing.
    cut, _ = run(text, first, writes("- Ann Lee = PERSON\n- END"))
    whole, _ = run(text, second, writes("- Ann Lee de Vega = PERSON\n- END"))
    assert [(e.value, e.type) for e in merged([], entities(text, cut) + entities(text, whole))] == [
        ("Ann Lee de Vega", "PERSON")
    ]


def entity(kind: str, start: int, value: str, confidence: float) -> Entity:
    return Entity(type=kind, start=start, end=start + len(value), value=value, confidence=confidence)


def test_windows_are_merged_without_doubles_or_overlaps() -> None:
    first = [entity("PERSON", 0, "Ann Lee", 0.6), entity("PLACE", 17, "Bonn", 0.4)]
    second = [entity("PERSON", 4, "Lee", 0.5), entity("PLACE", 17, "Bonn", 0.7)]
    assert merged([], first + second) == [
        entity("PERSON", 0, "Ann Lee", 0.6),
        entity("PLACE", 17, "Bonn", 0.7),
    ]


def test_rules_stand_before_the_model_and_drop_what_breaks_them() -> None:
    text = "Mail ann@example.org or Bob"
    claims = [entity("PERSON", 5, "ann@example.org", 0.9), entity("EMAIL", 24, "Bob", 0.9)]
    [kept] = merged(find(text, ["PERSON", "EMAIL"]), claims)
    assert (kept.type, kept.value) == ("EMAIL", "ann@example.org")


def test_a_window_of_names_is_told_to_its_last() -> None:
    names = [f"n{number}" for number in range(90)]
    text = "\n".join(names)
    [window] = windows_of(text)
    target = "".join(f"- {name} = PERSON\n" for name in names) + "- END\n"
    found, _ = run(text, window, writes(target))
    assert [e.value for e in entities(text, found)] == names

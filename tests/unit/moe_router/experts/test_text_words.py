from __future__ import annotations

from itertools import pairwise
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.experts.text_words import MAX_WORD_CHARS, least_windows, windows_of, words_of

texts = st.text(
    st.sampled_from("ab1 .,:;()\n王小 กี\u0301\u200b\u200f，أ😀'’-/@\"\\*_=~"), min_size=1, max_size=60
)


@given(texts)
def test_words_are_the_text_without_its_spaces(text: str) -> None:
    words = words_of(text)
    assert "".join(text[word.start : word.end] for word in words) == "".join(text.split())
    assert all(a.end <= b.start for a, b in pairwise(words))


@given(texts)
def test_windows_hold_every_word(text: str) -> None:
    held = {word for window in windows_of(text, size=7, overlap=2) for word in window.words}
    assert held == set(words_of(text))


@pytest.mark.parametrize(("text", "shared"), [("w " * 300, 24), ("王" * 300, 48), ("王b " * 150, 32)])
def test_windows_share_what_the_longest_entity_has(text: str, shared: int) -> None:
    windows = windows_of(text)
    assert all(len(set(a.words) & set(b.words)) == shared for a, b in pairwise(windows))
    assert all(len(window.words) == 96 for window in windows[:-1])


@given(texts.map(lambda text: text * 40))
def test_windows_are_soon_counted_from_below(text: str) -> None:
    assert least_windows(text) <= len(windows_of(text))


def test_a_long_texts_windows_are_about_as_many() -> None:
    assert least_windows("王小明 Ann " * 2000) == 2000 * 4 // 96


def test_a_text_without_words_has_no_windows() -> None:
    assert windows_of(" \n\t") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a-b),", ["a-b"]),
        ("ab12", ["ab12"]),
        ("O'Neil's", ["O'", "Neil", "'s"]),
        ("Ankara\u2019da", ["Ankara", "\u2019da"]),
        ("dell'Italia", ["dell'", "Italia"]),
        ("don't", ["don", "'t"]),
        ('Bob:"I', ["Bob", "I"]),
        ("Tel:+49 10:30", ["Tel", "+49", "10:30"]),
        ("a@b.org https://b.org/c?d=e,f", ["a@b.org", "https://b.org/c", "d", "e", "f"]),
        ("1,000.50", ["1,000.50"]),
        ("2011-03-04 Anne-Marie", ["2011-03-04", "Anne-Marie"]),
        ("690-Office\\,+44", ["690", "Office", "+44"]),
        ("Lee/Ann 1/2", ["Lee", "Ann", "1/2"]),
        ("王b", ["王", "b"]),
        ("มาลี", ["ม", "า", "ลี"]),
        ("မောင်", ["မော", "င်"]),
        ("김민수", ["김", "민", "수"]),
        ("\uf900\ufa6d", ["\uf900", "\ufa6d"]),  # of Han, for other standards' sake
        ("ꀀꀁ ꡀꡁ ꠀꠁ", ["ꀀꀁ", "ꡀꡁ", "ꠀꠁ"]),
        ("សុខា", ["សុ", "ខា"]),
        ("सीता:राम", ["सीता", "राम"]),
        ("Jose\u0301's", ["Jose\u0301", "'s"]),
        ("5,Ann id:5,name:Bob", ["5", "Ann", "id", "5", "name", "Bob"]),
        ("电：010，QQ：123", ["电", "010", "QQ", "123"]),
        ("أحمد،محمد", ["أحمد", "محمد"]),
        ("\u2066+49\u2069", ["+49"]),
        ("Ann—Bob…", ["Ann", "Bob"]),
        ("Ann😊 ❤️Bob❤️Eve👩🏽‍🚀.", ["Ann", "Bob", "Eve"]),
        ("📞0301234 ☎+49 Ann→Bob", ["0301234", "+49", "Ann", "Bob"]),
        ("**Ann Lee**, _Bob_ (__Eve.__)", ["Ann", "Lee", "Bob", "Eve"]),
        ("`ann` ~Bob~ *5* don**", ["ann", "Bob", "*5*", "don"]),
        ("****-9855 4556**** XXXX*", ["****-9855", "4556****", "XXXX"]),
        ("name=Ann&tel=+49&x=1 AT&T a==b x= ", ["name", "Ann", "tel", "+49", "x", "1", "AT&T", "a==b", "x="]),
        ("user_name snake_case", ["user_name", "snake_case"]),
        ("\u2060Ann\u2060 \u061cBob Eve\u00ad", ["Ann", "Bob", "Eve"]),
        ("Do\u00adnald", ["Do\u00adnald"]),
    ],
)
def test_words_part_where_names_do(text: str, words: list[str]) -> None:
    found = [text[w.start : w.end] for w in words_of(text)]
    assert [word for word in found if any(map(str.isalnum, word))] == words


def test_what_may_open_and_close_an_entity() -> None:
    text = "(07) 5 (a) Inc. d'Albert's"
    words = words_of(text)
    opening = [text[w.start : w.end] for w in words if w.opens]
    closing = [text[w.start : w.end] for w in words if w.closes]
    assert opening == ["(", "07", "5", "a", "Inc", "d'", "Albert"]
    assert closing == ["07", ")", "5", "a", ")", "Inc", ".", "Albert", "'s"]


@pytest.mark.parametrize("text", ["x" * (MAX_WORD_CHARS + 1), "TWFuIGlz/ZGlzdG+luZ3Vpc" * 20])
def test_a_long_stretch_is_part_of_nothing(text: str) -> None:
    [word] = words_of(text)
    assert word.too_long
    assert not word.opens
    assert not word.closes


def test_a_full_stop_closes_after_a_letter_alone() -> None:
    text = 'Ann". Bob.. Roe). डॉ.'
    assert [w.start for w in words_of(text) if w.closes and text[w.start] == "."] == [9, len(text) - 1]


@given(
    st.lists(st.sampled_from(["a", "b1", ".", "(1)", "c's", "d.", "王"]), min_size=1, max_size=70),
    st.integers(0, 100),
    st.integers(0, 5),
)
def test_every_entity_is_told_by_a_window_that_sees_it_as_well_as_any(
    chunks: list[str], at: int, length: int
) -> None:
    text = " ".join(chunks)
    windows = windows_of(text, size=14, overlap=7)
    words = words_of(text)
    opening = [k for k, word in enumerate(words) if word.opens]
    if not opening:
        return
    first = opening[at % len(opening)]
    ends = [word.end for word in words[first : first + length + 1] if word.closes]
    if not ends:
        return
    start, end = words[first].start, ends[-1]
    seen = [w for w in windows if w.start <= start and end <= w.end]
    telling = [w for w in seen if w.tells(start, end)]
    whole = [
        w
        for w in seen
        if (w is windows[0] or any(word.opens and word.start < start for word in w.words))
        and (w is windows[-1] or any(word.closes and end < word.end for word in w.words))
    ]
    assert telling == (whole or telling)
    assert bool(telling) == bool(seen)


def test_a_word_that_is_too_long_is_not_shown() -> None:
    text = f"Attachment {'QUJD' * 100} Please call Ann"
    [window] = windows_of(text)
    assert window.shown(text) == "Attachment … Please call Ann"
    [short] = windows_of("Please call Ann")
    assert short.shown("Please call Ann") == "Please call Ann"


def test_halves_have_all_words_of_a_window_and_share_some() -> None:
    text = " ".join(f"w{number}" for number in range(200))
    windows = windows_of(text)
    for window in windows:
        left, right = window.halves()
        assert left.words[0] == window.words[0]
        assert right.words[-1] == window.words[-1]
        shared = [word for word in left.words if word in right.words]
        assert len(left.words) + len(right.words) - len(shared) == len(window.words)
        assert len(shared) == 2 * (len(window.words) // 8)
        assert (left.before, right.after) == (window.before, window.after)
        middle = window.words[len(window.words) // 2]
        assert left.tells(middle.start, middle.end) or right.tells(middle.start, middle.end)


@pytest.mark.parametrize(
    "text",
    [
        "C'est l'avis d'Émile Zola", "d'été, l'Île", "Ève's", "Anaïs/Zoé", "Zoé/Ann", "5,Élan", "55-Élan",
        "Nguyễn's d’Ọbasanjọ", "o'ééé o'éééé", "Nguyễn/Ơn", "aé/ée",
    ],
)  # fmt: skip
def test_accents_may_be_composed_or_not(text: str) -> None:
    composed, apart = normalize("NFC", text), normalize("NFD", text)
    assert [(normalize("NFC", apart[w.start : w.end]), w.opens, w.closes) for w in words_of(apart)] == [
        (composed[w.start : w.end], w.opens, w.closes) for w in words_of(composed)
    ]

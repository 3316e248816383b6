from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_router.errors import ModelAssetError
from moe_router.gating.language import LanguageGuess, LanguageIdentifier, clean, find_model
from moe_router.gating.ngrams import NgramModel
from moe_router.gating.pipeline import MODELS

SENTENCES = {
    "en": "The bank has not sent me a new card yet.",
    "de": "Der Umsatz stieg im dritten Quartal deutlich.",
    "fr": "Je n'ai pas encore reçu ma nouvelle carte.",
    "es": "¿Por qué me han cobrado dos veces la misma compra?",
    "zh": "我的银行卡还没有寄到。",
    "ja": "新しいカードがまだ届いていません。",
    "ru": "Моя новая карта ещё не пришла.",
    "ar": "لم تصلني البطاقة الجديدة بعد.",
    "hi": "मेरा नया कार्ड अभी तक नहीं आया है।",
    "ko": "새 카드가 아직 도착하지 않았습니다.",
}


@pytest.fixture(scope="module", params=["with the n-grams", "alone"])
def identifier(request: pytest.FixtureRequest) -> LanguageIdentifier:
    return LanguageIdentifier(find_model(None), NgramModel(MODELS) if request.param != "alone" else None)


def test_sentences(identifier):
    found = identifier.identify(list(SENTENCES.values()))
    assert [guess.code for guess in found] == list(SENTENCES)
    assert all(0.3 <= guess.probability <= 1.0 for guess in found)


def test_the_n_grams_know_what_lid_176_hardly_does():
    yoruba = "Mo fẹ́ mọ ìdí tí owó mi kò fi tíì dé."
    both = LanguageIdentifier(find_model(None), NgramModel(MODELS))
    assert both.identify([yoruba])[0].code == "yo"


def test_languages_that_the_n_grams_do_not_know_are_left_to_lid_176():
    both = LanguageIdentifier(find_model(None), NgramModel(MODELS))
    danish, finnish = "Jeg har endnu ikke modtaget mit nye kort.", "En ole vielä saanut uutta korttiani."
    assert [guess.code for guess in both.identify([danish, finnish])] == ["da", "fi"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("मला मराठी बोलायला आवडते", "mr"), ("आज खूप पाऊस पडत आहे", "mr"), ("Днес времето е много хубаво", "bg"),
        ("Денес времето е многу убаво", "mk"),
    ],
)  # fmt: skip
def test_a_neighbour_of_a_known_language_stays_its_own(identifier, text, code):
    assert identifier.identify([text])[0].code == code


@pytest.mark.parametrize(
    "text",
    [
        "", " \n\t ", "12345", "3.14 + 2,71 = 5.85", "😀👍🏽", "!?…", "\ud800", "\0", "https://example.com/a?b=c",
        "@someone #tag", "ann@example.org", "`SELECT * FROM users`", "x_1 = f()", "<br/>", "\u200b\u200b",
        "192.168.0.1:8001",
    ],
)  # fmt: skip
def test_what_is_in_no_language_is_undetermined(identifier, text):
    (guess,) = identifier.identify([text])
    assert (guess.code, guess.probability) == ("und", 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "mera card abhi tak nahi aaya hai", "aap kaise hain bhai", "khoobi dadash che khabar",
        "man in film ro doost nadashtam", "ya ne poluchil svoyu kartu", "zhe ge dian ying hen hao kan",
        "ochen plohoy servis, bolshe ne pridu", "den mou arese katholou to proion",
        "ana mabsoot awi ennaharda",
    ],
)  # fmt: skip
def test_what_is_romanised_is_not_taken_for_another_language_with_confidence(text):
    (guess,) = LanguageIdentifier(find_model(None), NgramModel(MODELS)).identify([text])
    assert guess.code == "und"
    assert guess.probability < 0.3


@pytest.mark.parametrize(
    ("text", "code"),
    [("j'adore", "fr"), ("OMG best day ever!!!", "en"), ("Karte weg", "de"), ("che schifo", "it")],
)
def test_a_few_words_are_still_told(text, code):
    assert LanguageIdentifier(find_model(None), NgramModel(MODELS)).identify([text])[0].code == code


def test_a_guess_below_the_limit_is_undetermined_but_keeps_its_probability(identifier):
    (sure,) = identifier.identify([SENTENCES["en"]])
    (guess,) = identifier.identify([SENTENCES["en"]], min_probability=1.01)
    assert (guess.code, guess.probability) == ("und", sure.probability)


def test_noise_around_a_sentence_does_not_matter(identifier):
    noisy = f"@bank #help https://t.co/xYz {SENTENCES['de']} <b>ann@example.org</b> `rm -rf`\n\n12345"
    assert identifier.identify([noisy])[0].code == "de"


def test_of_two_languages_it_names_one(identifier):
    mixed = f"{SENTENCES['ru']} {SENTENCES['ru']} Thank you."
    assert identifier.identify([mixed])[0].code == "ru"


def test_a_long_text_is_judged_by_its_beginning(identifier):
    long = SENTENCES["fr"] * 50_000
    assert identifier.identify([long])[0].code == "fr"
    assert identifier.identify([long + SENTENCES["zh"] * 1000])[0] == identifier.identify([long])[0]


@pytest.mark.parametrize(
    "noise",
    [
        " " * 5_000, "." * 700, "😀" * 600, "😀 ❤️👍🏽" * 300, "​" * 700, "… " * 400,
        f"https://example.com/{'a/' * 700}", f"```\n{'let the_value = compute(x);' * 40}```",
    ],
)  # fmt: skip
def test_noise_before_a_sentence_does_not_hide_it(identifier, noise):
    assert identifier.identify([f"{noise} {SENTENCES['de']}"])[0].code == "de"


def test_code_whose_end_is_out_of_sight_is_no_text(identifier):
    code = "for the value of this function we return what is in the list\n" * 100
    assert identifier.identify([f"{SENTENCES['de']}\n```\n{code}"])[0].code == "de"
    assert identifier.identify([f"```\n{code}"])[0] == LanguageGuess("und", 0.0)


@pytest.mark.parametrize(("capital", "small"), [(0x1D400, 0x1D41A), (0x1D5D4, 0x1D5EE), (0xFF21, 0xFF41)])
def test_letters_in_another_dress_are_read_as_plain_ones(identifier, capital, small):
    def dressed(letter: str) -> str:
        if not letter.isascii() or not letter.isalpha():
            return letter
        return chr((small if letter.islower() else capital) + ord(letter.lower()) - ord("a"))

    fancy = "".join(map(dressed, SENTENCES["en"]))
    assert fancy != SENTENCES["en"]
    assert identifier.identify([fancy]) == identifier.identify([SENTENCES["en"]])


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5_000, "@" * 5_000, "`" * 5_000, "<a " * 1_700, "a@" * 2_500, "_" * 5_000, "!" * 5_000,
        "!!!!!!!a" * 700, "\n" * 10**6,
    ],
)  # fmt: skip
def test_texts_made_to_stall_the_patterns_do_not(identifier, text):
    assert 0.0 <= identifier.identify([text])[0].probability <= 1.0


def test_surrogates_and_line_breaks_are_no_obstacle(identifier):
    broken = SENTENCES["es"].replace(" ", "\r\n\ud83d \u2028 ")
    assert identifier.identify([broken])[0].code == "es"


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(), max_size=200))
def test_any_text_gets_a_code_and_a_probability(identifier, text):
    (guess,) = identifier.identify([text])
    assert 2 <= len(guess.code) <= 3
    assert guess.code.islower()
    assert 0.0 <= guess.probability <= 1.0


def test_threads_may_share_it(identifier):
    texts = list(SENTENCES.values())
    expected, found = identifier.identify(texts), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: identifier.identify(texts)})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == expected for i in range(4))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see https://x.org/a now", "see now"),
        ("www.x.org rocks", "rocks"),
        ("write to a.b@c.de please", "write to please"),
        ("@ann #cool day", "day"),
        ("call `f(x)` and ```\ncode\n``` here", "call and here"),
        ("<p class='x'>bold</p>", "bold"),
        ("user_name and b2b in foo()", "and in"),
        ("wait........ what 😀😀😀😀😀😀😀😀", "wait what"),
        ("why?!... (really)", "why?!... really"),
        ("before ```\ncode", "before"),
        ("one\ntwo\u2028three", "one two three"),
        ("größer als Ärger", "größer als Ärger"),
    ],
)
def test_what_is_in_no_language_is_taken_out(text, left):
    assert clean(text) == left


class TestModelFile:
    def test_the_large_model_goes_first_where_a_folder_is_mounted(self, tmp_path):
        (tmp_path / "lid.176.ftz").touch()
        assert find_model(tmp_path) == tmp_path / "lid.176.ftz"
        (tmp_path / "lid.176.bin").touch()
        assert find_model(tmp_path) == tmp_path / "lid.176.bin"

    def test_a_file_may_be_named(self, tmp_path):
        (tmp_path / "own.bin").touch()
        assert find_model(tmp_path / "own.bin") == tmp_path / "own.bin"

    def test_an_empty_volume_falls_back_on_the_wheel(self, tmp_path):
        for mounted in (tmp_path, tmp_path / "gone", None):
            assert find_model(mounted).name == "lid.176.ftz"

    def test_with_neither_the_mend_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ModelAssetError, match=r"put lid\.176\.bin into .* or pip install"):
            find_model(tmp_path)
        monkeypatch.setattr("moe_router.gating.language.USUAL_FOLDERS", (tmp_path / "models",))
        with pytest.raises(ModelAssetError, match=r"into .*/models"):
            find_model(None)

    def test_the_usual_folders_are_searched_where_none_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr("moe_router.gating.language.USUAL_FOLDERS", (tmp_path / "a", tmp_path / "b"))
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "lid.176.bin").touch()
        assert find_model(None) == tmp_path / "b" / "lid.176.bin"

    @pytest.mark.parametrize("content", [None, b"", b"no model at all, but long enough to be read" * 9])
    def test_what_is_no_model_is_refused(self, tmp_path: Path, content):
        path = tmp_path / "own.bin"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelAssetError, match=r"own\.bin cannot be loaded"):
            LanguageIdentifier(path)

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.99])
    def test_one_that_is_cut_short_is_refused(self, tmp_path: Path, share):
        whole = find_model(None).read_bytes()
        path = tmp_path / "lid.176.ftz"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelAssetError, match="cut short"):
            LanguageIdentifier(path)

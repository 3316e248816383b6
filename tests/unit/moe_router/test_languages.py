from __future__ import annotations

import fasttext
import pytest

from moe_router.gating.language import find_model
from moe_router.languages import language_code, stated_language


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("english", "en"), ("English", "en"), (" GERMAN ", "de"), ("de", "de"), ("deu", "de"), ("ger", "de"),
        ("DE", "de"), ("chinese", "zh"), ("Mandarin Chinese", "zh"), ("greek", "el"), ("Farsi", "fa"),
        ("scottish gaelic", "gd"), ("norwegian bokmål", "no"), ("norwegian nynorsk", "nn"),
        ("filipino", "tl"), ("serbo-croatian", "sh"), ("Cebuano", "ceb"), ("ckb", "ckb"), ("und", "und"),
        ("arb", "ar"), ("pes", "fa"), ("prs", "fa"), ("swh", "sw"), ("zsm", "ms"), ("ekk", "et"),
        ("kmr", "ku"),
        ("Iranian Persian", "fa"), ("yue", "yue"), ("arz", "arz"), ("gsw", "als"), ("Swiss German", "als"),
        ("kok", "gom"), ("Konkani", "gom"), ("zza", "diq"),
    ],
)  # fmt: skip
def test_names_and_codes(name, code):
    assert language_code(name) == code


@pytest.mark.parametrize("name", ["klingonese", "", " ", "xx", "zh-CN", "english/german", "in", "123"])
def test_what_is_no_language_is_refused(name):
    with pytest.raises(ValueError, match="neither an ISO 639 code nor an English language name"):
        language_code(name)


def test_every_code_that_lid_176_gives_stays_as_it_is():
    labels = fasttext.load_model(str(find_model(None))).predict("x", k=400, threshold=-1.0)[0]
    codes = [label.removeprefix("__label__") for label in labels]
    assert len(codes) == 176
    assert [language_code(code) for code in codes] == codes


@pytest.mark.parametrize(
    ("stated", "code"),
    [
        ("eng", "en"), ("zho", "zh"), ("cmn", "zh"), ("nb", "no"), ("iw", "he"), ("en", "en"), ("xx", "xx"),
        ("und", None), (None, None),
    ],
)  # fmt: skip
def test_what_callers_state_is_brought_to_the_registrys_codes(stated, code):
    assert stated_language(stated) == code

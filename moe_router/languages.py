"""Language names and codes, brought to the codes that lid.176 gives."""

from __future__ import annotations

from functools import lru_cache

from iso639 import Lang
from iso639.exceptions import DeprecatedLanguageValue, InvalidLanguageValue

from moe_router.contracts import UNDETERMINED

AS_LID_176 = {
    # What lid.176 calls by a code that the standard has withdrawn, or by that of a wider language.
    "sh": "sh", "hbs": "sh", "serbo-croatian": "sh", "bh": "bh", "bih": "bh", "bihari": "bh", "eml": "eml",
    "iw": "he", "ji": "yi", "nb": "no", "nob": "no", "cmn": "zh", "fil": "tl", "gsw": "als", "kok": "gom",
    "zza": "diq", "bua": "bxr", "chm": "mhr",
    # Names in common use that the standard words differently.
    "alemannic": "als", "swiss german": "als", "konkani": "gom", "mari": "mhr", "zazaki": "diq",
    "avar": "av", "bokmal": "no", "bokmål": "no", "cantonese": "yue", "farsi": "fa", "frisian": "fy",
    "greek": "el", "khmer": "km", "kyrgyz": "ky", "lao": "lo", "lezgian": "lez", "mandarin": "zh",
    "nynorsk": "nn", "occitan": "oc", "odia": "or", "pashto": "ps", "simplified chinese": "zh",
    "sinhalese": "si", "slovene": "sl", "traditional chinese": "zh", "uyghur": "ug",
}  # fmt: skip
"""Names and codes that ISO 639 does not lead to the code that lid.176 gives."""


TOLD_APART = frozenset({"als", "arz", "azb", "ckb", "dty", "min", "wuu", "yue"})
"""What lid.176 tells apart from the wider language that ISO 639 counts it to."""


def language_code(name: str) -> str:
    """The code that lid.176 gives a language, from its English name or any ISO 639 code.

    Raises:
        ValueError: the name is neither.
    """
    plain = name.strip().lower()
    if plain in AS_LID_176:
        return AS_LID_176[plain]
    for form in (plain, name.strip(), name.strip().title()):
        try:
            found = Lang(form)
        except (InvalidLanguageValue, DeprecatedLanguageValue):
            continue
        code = found.pt1 or found.pt3 or found.pt5
        if not (code in AS_LID_176 or found.pt1 or code in TOLD_APART):
            wider = found.macro()  # pes and prs are fa, arb is ar
            code = wider.pt1 if wider is not None and wider.pt1 else code
        return AS_LID_176.get(code, code)
    raise ValueError(f"{name!r} is neither an ISO 639 code nor an English language name")


@lru_cache(maxsize=1024)
def stated_language(code: str | None) -> str | None:
    """A caller's code as lid.176 gives it; None for none and for `und`. One that ISO 639 lacks stays."""
    if code is None or code == UNDETERMINED:
        return None
    try:
        return language_code(code)
    except ValueError:
        return code

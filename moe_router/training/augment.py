"""More renderings of a request by composition: hasty typing, JSON-speak, words left out."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moe_router.training.phrasings import OUT_OF_SCOPE, Phrasing

SLIPS_PER_CHARACTER = 0.03, 0.16
"""From a careful hand to a phone on a bumpy bus."""
_KEYS = ("task", "action", "instruction", "query", "goal", "type", "want", "op", "prompt", "label_for")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
_NEIGHBOURS = {
    letter: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in _ROWS for at, letter in enumerate(row)
}


def augmented(phrasings: Sequence[Phrasing], seed: int) -> list[Phrasing]:
    """The phrasings, a mistyped copy of each but JSON, and a JSON copy of the short ones.

    A copy stays in its family and its split.
    """
    rng = np.random.default_rng(seed)
    result = list(phrasings)
    for phrasing in phrasings:
        if phrasing.style == "json":
            continue
        if phrasing.style != "typo":
            result.append(replace(phrasing, style="typo", text=mistyped(phrasing.text, rng)))
        short = phrasing.style in ("terse", "order") or phrasing.target.startswith(OUT_OF_SCOPE)
        if short and rng.random() < 0.5:
            result.append(replace(phrasing, style="json", text=as_json(phrasing.text, rng)))
    return result


def varied(phrasing: Phrasing, rng: np.random.Generator) -> str:
    """The request's text, half of the time in another rendering; JSON stays as it is."""
    draw = rng.random()
    if draw < 0.5 or phrasing.style == "json":
        return phrasing.text
    if draw < 0.72:
        return mistyped(phrasing.text, rng)
    if draw < 0.8:
        return as_json(phrasing.text, rng)
    if draw < 0.9:
        return shortened(phrasing.text, rng)
    return without_marks(phrasing.text)


def mistyped(text: str, rng: np.random.Generator) -> str:
    """Drops, swaps, doubles or hits beside a few letters; some hands leave out capitals and accents."""
    letters = list(text)
    slips = max(1, int(len(letters) * rng.uniform(*SLIPS_PER_CHARACTER)))
    for at in rng.choice(len(letters), size=min(slips, len(letters)), replace=False):
        index = int(at)
        if not letters[index].isalpha():
            continue
        slip = rng.integers(4)
        beside = _NEIGHBOURS.get(letters[index].lower(), "")
        if slip == 0:
            letters[index] = ""
        elif slip == 1 and index + 1 < len(letters):
            letters[index], letters[index + 1] = letters[index + 1], letters[index]
        elif slip == 2 and beside:
            letters[index] = beside[int(rng.integers(len(beside)))]
        else:
            letters[index] *= 2
    joined = "".join(letters) or text
    return without_marks(joined) if rng.random() < 0.5 else joined


def without_marks(text: str) -> str:
    """In lower case, without the accents of Latin letters and without the mark at the end."""
    plain = "".join(
        unicodedata.normalize("NFD", c)[0]
        if c.isalpha() and unicodedata.name(c, "").startswith("LATIN")
        else c
        for c in text
    )
    return plain.lower().rstrip(".?!。？！؟।") or text


def shortened(text: str, rng: np.random.Generator) -> str:
    """Without about one word in eight; a text of fewer than five words stays whole."""
    words = text.split()
    if len(words) < 5:
        return text
    kept = [word for word in words if rng.random() > 0.125]
    return " ".join(kept) or text


def as_json(text: str, rng: np.random.Generator) -> str:
    """A request as a value in a JSON object, as programs send it."""
    key = _KEYS[int(rng.integers(len(_KEYS)))]
    value = text.rstrip(".?!。？！؟।") or text
    if len(value.split()) <= 4 and rng.random() < 0.5:
        value = re.sub(r"[\s/:,]+", "_", value.lower())
    if rng.random() < 0.2:
        return json.dumps({"request": {key: value}}, ensure_ascii=False)
    return json.dumps({key: value}, ensure_ascii=False)

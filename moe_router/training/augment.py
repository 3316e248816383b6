"""More renderings of a request by composition: hasty typing, and JSON-speak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moe_router.training.phrasings import OUT_OF_SCOPE, Phrasing

TYPOS_PER_CHARACTER = 0.07
_KEYS = ("task", "action", "instruction", "query", "goal", "type")


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


def mistyped(text: str, rng: np.random.Generator) -> str:
    """Drops, swaps or doubles a few letters; most slips fall within words, as real ones do."""
    letters = list(text)
    slips = max(1, int(len(letters) * TYPOS_PER_CHARACTER))
    for at in rng.choice(len(letters), size=min(slips, len(letters)), replace=False):
        index = int(at)
        if not letters[index].isalpha():
            continue
        slip = rng.integers(3)
        if slip == 0:
            letters[index] = ""
        elif slip == 1 and index + 1 < len(letters):
            letters[index], letters[index + 1] = letters[index + 1], letters[index]
        else:
            letters[index] *= 2
    joined = "".join(letters)
    return joined.lower() if rng.random() < 0.5 else joined


def as_json(text: str, rng: np.random.Generator) -> str:
    """A request as the value of a JSON object, as programs send it."""
    key = _KEYS[int(rng.integers(len(_KEYS)))]
    return json.dumps({key: text.rstrip(".?!。？！؟")}, ensure_ascii=False)

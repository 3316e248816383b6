r"""More texts to learn hate speech from: posts that only mention a group, hate without slurs, slurs alone.

A small set of hate speech names its groups mostly where it insults them, so that an expert takes the name
of a group for hate; and it has few sentences, which are soon known by heart. So there are, in ten languages:

- our own sentences (`data/mentions/templates.tsv`) that tell of groups, praise and defend them, quote hate
  to condemn it, swear at things and at single persons; some deny a group its rights. They are filled with
  names of groups (`groups.tsv`, in the grammatical forms that the sentences need);
- our own sentences (`naming.tsv`) in which nothing but a slur is hateful, and others that condemn it, ask
  about it, or take it as one's own. Their slurs are found in the training rows (`slurs.py`);
- the training rows, up to a quarter of them in hasty typing;
- where their files are given, posts of other datasets (`adversarial_posts.py`).

python -m moe_router.training.experts.mention_texts --data DIR/hatecheck --output runs/data/hatecheck \
    --gahd gahd.csv --hatemoji HatemojiBuild
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moe_router.training.augment import mistyped
from moe_router.training.experts import data_folder
from moe_router.training.experts.adversarial_posts import gahd, hatemoji
from moe_router.training.experts.examples import Row
from moe_router.training.experts.slurs import slurs
from moe_router.training.own_tables import DATA, fields_of

OWN = DATA / "mentions"

FILLINGS = 5
"""Texts that are made of a sentence with a slot for groups."""
SLURS = {"hateful": 6, "non-hateful": 4}
"""Texts that are made of a sentence with a slot for a slur."""
LOWER_CASED = 0.15
"""Share of our own texts without capitals."""
MISTYPED = 0.15
"""Share of the others with letters dropped, swapped or doubled."""
HASTY = 0.25
"""Share of the training rows that are typed in haste."""

_SLOT = re.compile(r"\{([A-Z]+)\}")


def training_rows(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The rows, some in hasty typing, and the texts that are made beside them."""
    rng = np.random.default_rng([seed, 1])
    typed = [replace(row, text=_in_haste(row.text, rng)) if rng.random() < HASTY else row for row in rows]
    return [*typed, *generate(rows, seed)]


def generate(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Texts in the languages of the rows, in an order drawn by chance."""
    rng = np.random.default_rng(seed)
    languages = {row.language for row in rows}
    names = groups()
    words = {code: slurs([row for row in rows if row.language == code]) for code in languages}
    filled = [
        (language, label, text)
        for language, label, template in templates()
        if language in languages
        for text in _filled(template, names[language], FILLINGS, rng)
    ]
    filled += [
        (language, label, text)
        for language, label, template in naming()
        if words.get(language)
        for text in _filled(template, {"S": words[language]}, SLURS[label], rng)
    ]
    made = [Row(_typed(text, rng), language, label) for language, label, text in filled]
    return [made[int(index)] for index in rng.permutation(len(made))]


def templates() -> list[tuple[str, str, str]]:
    """Language, label and sentence, which holds at most one slot."""
    return [(language, label, text) for language, label, _, text in fields_of(OWN / "templates.tsv")]


def naming() -> list[tuple[str, str, str]]:
    """Language, label and sentence, which holds one slot, `{S}`, for a slur."""
    return [(language, label, text) for language, label, _, text in fields_of(OWN / "naming.tsv")]


def groups() -> dict[str, dict[str, list[str]]]:
    """Names of groups by language and grammatical form; in each form the same groups in the same order."""
    found: dict[str, dict[str, list[str]]] = {}
    for language, form, names in fields_of(OWN / "groups.tsv"):
        found.setdefault(language, {})[form] = names.split("|")
    return found


def _filled(template: str, words: dict[str, list[str]], count: int, rng: np.random.Generator) -> list[str]:
    slot = _SLOT.search(template)
    if slot is None:
        return [template]
    drawn = rng.choice(words[slot[1]], min(count, len(words[slot[1]])), replace=False)
    made = [template.replace(slot[0], str(word)) for word in drawn]
    return [text[:1].upper() + text[1:] for text in made]


def _in_haste(text: str, rng: np.random.Generator) -> str:
    """Mistyped, two words run together, or without capitals."""
    words, draw = text.split(" "), rng.random()
    if draw < 0.5:
        return mistyped(text, rng)
    if len(words) < 3 or draw > 0.8:
        return text.lower()
    at = int(rng.integers(len(words) - 1))
    return " ".join([*words[:at], words[at] + words[at + 1], *words[at + 2 :]])


def _typed(text: str, rng: np.random.Generator) -> str:
    if rng.random() < LOWER_CASED:
        return text.lower()
    return mistyped(text, rng) if rng.random() < MISTYPED else text


if __name__ == "__main__":
    data_folder.extend(__doc__, training_rows, further={"gahd": gahd, "hatemoji": hatemoji})

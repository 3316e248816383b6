"""More texts to learn hate speech from: posts that only mention a group, and hate without slurs.

A small set of hate speech names its groups mostly where it insults them, so that an expert takes the name
of a group for hate. Our own sentences (`data/mentions/templates.tsv`, in ten languages) tell of groups,
praise and defend them, quote hate to condemn it, swear at things and at single persons; some deny a group
its rights. They are filled with names of groups (`groups.tsv`, in the grammatical forms that the sentences
need).

python -m moe_router.training.experts.mention_texts --data ../shared/data/hatecheck --output runs/data/hate
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from moe_router.training.augment import mistyped
from moe_router.training.experts import data_folder
from moe_router.training.experts.examples import Row
from moe_router.training.own_tables import DATA, fields_of

OWN = DATA / "mentions"

FILLINGS = 5
"""Texts that are made of a sentence with a slot."""
LOWER_CASED = 0.15
"""Share of the texts without capitals."""
MISTYPED = 0.15
"""Share of the others with letters dropped, swapped or doubled."""

_SLOT = re.compile(r"\{([A-Z]+)\}")


def generate(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Texts in the languages of the rows, in an order drawn by chance."""
    rng = np.random.default_rng(seed)
    languages = {row.language for row in rows}
    names = groups()
    made = [
        Row(_typed(text, rng), language, label)
        for language, label, template in templates()
        if language in languages
        for text in _filled(template, names[language], rng)
    ]
    return [made[int(index)] for index in rng.permutation(len(made))]


def templates() -> list[tuple[str, str, str]]:
    """Language, label and sentence, which holds at most one slot."""
    return [(language, label, text) for language, label, _, text in fields_of(OWN / "templates.tsv")]


def groups() -> dict[str, dict[str, list[str]]]:
    """Names of groups by language and grammatical form; in each form the same groups in the same order."""
    found: dict[str, dict[str, list[str]]] = {}
    for language, form, names in fields_of(OWN / "groups.tsv"):
        found.setdefault(language, {})[form] = names.split("|")
    return found


def _filled(template: str, names: dict[str, list[str]], rng: np.random.Generator) -> list[str]:
    slot = _SLOT.search(template)
    if slot is None:
        return [template]
    drawn = rng.choice(names[slot[1]], FILLINGS, replace=False)
    made = [template.replace(slot[0], str(name)) for name in drawn]
    return [text[:1].upper() + text[1:] for text in made]


def _typed(text: str, rng: np.random.Generator) -> str:
    if rng.random() < LOWER_CASED:
        return text.lower()
    return mistyped(text, rng) if rng.random() < MISTYPED else text


if __name__ == "__main__":
    data_folder.extend(__doc__, generate)

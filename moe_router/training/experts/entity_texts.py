"""More texts to learn extraction from: new sentences around the entities of a dataset.

A small set of personal data has few sentences and many names, so that an expert learns the sentences by
heart. Three things are made of its training rows, and written with them as a data folder for
`mole train expert`:

- our own sentences (`data/entities/templates.tsv`), filled with values of the rows where they leave a
  slot, `{PERSON}`, and with their own where they name one, `{PERSON:王小明}`;
- the rows with every value replaced by another of its type;
- two of all these in one text, since long texts hold many entities.

Other sentences of our own (`data/entities/choosing.tsv`) train nothing: they help to choose the checkpoint
and the temperatures, since a small validation file has few patterns.

python -m moe_router.training.experts.entity_texts --data ../shared/data/pii --output runs/data/pii
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from stdnum.iso7064 import mod_97_10

from moe_router.contracts import Entity
from moe_router.training.experts import data_folder
from moe_router.training.experts.examples import Row
from moe_router.training.own_tables import DATA, fields_of

FILLINGS = 3
"""Texts that are made of a template with slots."""
COPIES = 2
"""Texts that are made of one without, which differ where one is put in lower case or beside another."""
SWAPS = 2
"""Texts that are made of a row with other values, so that our sentences do not drown the dataset's."""
LOWER_CASED = 0.12
"""Share of the texts without capitals."""
JOINED = 0.35
"""Texts of two, for each of one."""

_SLOT = re.compile(r"\{([A-Z_]+)(?::([^}]*))?\}")
"""A type, or another name of a slot; and the value, where the sentence names it."""
_TYPES = {
    "FIRST": "PERSON", "LAST": "PERSON", "HON": "TITLE", "JOB": "TITLE", "STREET": "ADDRESS", "YEAR": "DATE",
}  # fmt: skip
"""The types of those slots whose name is not their type."""

_HONORIFICS = ("Mr.", "Mrs.", "Ms.", "Dr.", "Miss", "Prof.", "Mr", "Mrs", "Ms", "Dr")
_JOBS = (
    "nurse", "Pharmacist", "software engineer", "Bus driver", "Dental assistant", "civil engineer",
    "Electrician", "Head of Marketing", "Financial analyst", "plumber", "Primary school teacher", "Librarian",
    "Web developer", "Chief Executive Officer", "Insurance claims clerk", "Butcher", "graphic designer",
    "Real estate agent", "Carpenter", "Sales representative", "Truck mechanic", "Social worker", "Chef",
    "Office manager", "Airline pilot", "Radiologic technologist", "Court reporter", "Security guard",
    "Veterinary surgeon", "Warehouse supervisor", "Human resources specialist", "Fitness trainer",
    "Tax accountant", "Dispatcher",
)  # fmt: skip
_MONTHS = ("January", "March", "April", "May", "July", "August", "October", "December")

Slot = Callable[[random.Random], str]


def generate(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Texts made of training rows, in an order drawn by chance; the rows themselves are not among them."""
    rng = random.Random(seed)  # noqa: S311  of texts
    slots = _slots(rows)
    made = [
        _filled(template, language, slots, rng)
        for language, template in templates()
        if {name for name, _ in _SLOT.findall(template)} <= set(slots)  # a dataset may lack a type
        for _ in range(FILLINGS if _is_open(template) else COPIES)
    ]
    made += [_swapped(row, slots, rng) for row in rows for _ in range(SWAPS)]
    either = [*rows, *made]
    made += [_joined(rng.choice(either), rng.choice(either), rng) for _ in range(int(JOINED * len(either)))]
    made = [_lower_cased(row) if rng.random() < LOWER_CASED else row for row in made]
    rng.shuffle(made)
    return made


def choosing(rows: Sequence[Row]) -> list[Row]:
    """Texts that no weight is fitted on, with entities of such types as the rows have."""
    known = {entity.type for row in rows for entity in row.entities}
    rng = random.Random(0)  # noqa: S311  every value is named: nothing is drawn
    made = [_filled(text, language, {}, rng) for language, text in _sentences("choosing.tsv")]
    return [one for one in made if {entity.type for entity in one.entities} <= known]


def templates() -> list[tuple[str, str]]:
    """Language and sentence, with slots and named values, of the project's own sentences to train on."""
    return _sentences("templates.tsv")


def _sentences(table: str) -> list[tuple[str, str]]:
    pairs = fields_of(DATA / "entities" / table)
    return [(language, text.replace("\\n", "\n")) for language, text in pairs]


def _is_open(template: str) -> bool:
    """Whether a value must be drawn."""
    return any(not value for _, value in _SLOT.findall(template))


def _slots(rows: Iterable[Row]) -> dict[str, Slot]:
    """What may stand in each slot: values of the rows, and of some types made ones."""
    values: dict[str, list[str]] = defaultdict(list)
    for entity in (entity for row in rows for entity in row.entities):
        values[entity.type].append(entity.value)
    names = [name.split() for name in values["PERSON"] if " " in name and name.split()[0] not in _HONORIFICS]
    addresses = [value for value in values["ADDRESS"] if len(value.split()) > 2 and value[-1].isalnum()]
    drawn = {
        **values,
        "PERSON": [" ".join(name) for name in names],
        "FIRST": [name[0] for name in names],
        "LAST": [name[-1] for name in names],
        "ADDRESS": addresses,
        "HON": list(_HONORIFICS),
        "JOB": [*_JOBS, *(v for v in values["TITLE"] if len(v) > 5)],
    }
    made: dict[str, Slot] = {
        name: lambda rng, own=tuple(own): rng.choice(own)  # type: ignore[misc]
        for name, own in drawn.items()
        if own
    }
    return made | {
        "AGE": lambda rng: str(rng.randint(2, 97)),
        "YEAR": lambda rng: str(rng.randint(1930, 2026)),
        "DATE": _date,
        "ID": _identity,
        "IBAN": _iban,
        "IP_ADDRESS": lambda rng: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
        "PHONE": lambda rng: made["PHONE"](rng) if "PHONE" in made and rng.random() < 0.6 else _phone(rng),
        "STREET": lambda rng: f"{made['LAST'](rng)} {rng.choice(('Street', 'Road', 'Lane', 'Avenue', 'St'))}",
    }


def _filled(template: str, language: str, slots: dict[str, Slot], rng: random.Random) -> Row:
    return _spliced(
        template,
        [
            (match.start(), match.end(), _TYPES.get(match[1], match[1]), match[2] or slots[match[1]](rng))
            for match in _SLOT.finditer(template)
        ],
        language,
    )


def _swapped(row: Row, slots: dict[str, Slot], rng: random.Random) -> Row:
    """The row with other values; one that is a single word stays one."""

    def other(entity: Entity) -> str:
        if entity.type == "PERSON" and " " not in entity.value:
            return slots["FIRST"](rng) if entity.value[:1].isupper() else slots["FIRST"](rng).lower()
        return slots[entity.type](rng) if entity.type not in ("TITLE", "ADDRESS") else entity.value

    return _spliced(row.text, [(e.start, e.end, e.type, other(e)) for e in row.entities], row.language)


def _spliced(text: str, parts: Sequence[tuple[int, int, str, str]], language: str) -> Row:
    """A text with stretches (start, end) replaced by entities (type, value); in order, without overlaps."""
    made, place = "", 0
    entities = []
    for start, end, kind, value in parts:
        made += text[place:start]
        entities.append(
            Entity(type=kind, start=len(made), end=len(made) + len(value), value=value, confidence=1.0)
        )
        made += value
        place = end
    return Row(made + text[place:], language, entities=tuple(entities))


def _joined(first: Row, second: Row, rng: random.Random) -> Row:
    gap = rng.choice((" ", "\n", "\n\n"))
    at = len(first.text) + len(gap)
    moved = [e.model_copy(update={"start": e.start + at, "end": e.end + at}) for e in second.entities]
    return Row(first.text + gap + second.text, first.language, entities=(*first.entities, *moved))


def _lower_cased(row: Row) -> Row:
    text = row.text.lower()
    if len(text) != len(row.text):  # some letters have no small form of the same length
        return row
    return Row(
        text,
        row.language,
        entities=tuple(e.model_copy(update={"value": text[e.start : e.end]}) for e in row.entities),
    )


def _date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1930, 2026)
    return rng.choice(
        (
            f"{month}/{day}/{year}", f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}",
            f"{rng.choice(_MONTHS)} {day}, {year}", f"{day} {rng.choice(_MONTHS)} {year}",
            f"{rng.choice(_MONTHS)} {year}", str(year),
        )
    )  # fmt: skip


def _identity(rng: random.Random) -> str:
    digits = "".join(rng.choices("0123456789", k=9))
    letter = rng.choice("ABCDEFGHKLMNPRSTWXYZ")
    return rng.choice((f"{digits[:3]}-{digits[3:5]}-{digits[5:]}", letter + digits[:8], letter + digits[:7]))


def _iban(rng: random.Random) -> str:
    country, length = rng.choice((("DE", 18), ("NL", 10), ("AT", 16), ("PT", 21)))
    bank = "INGB" if country == "NL" else ""
    account = bank + "".join(rng.choices("0123456789", k=length))
    return f"{country}{mod_97_10.calc_check_digits(account + country)}{account}"


def _phone(rng: random.Random) -> str:
    shape = rng.choice(
        (
            "+## ### ### ####",
            "(###) ###-####",
            "0## ## ## ## ##",
            "### ####",
            "0##-#######",
            "+##########",
            "#### ######",
        )
    )
    return re.sub("#", lambda _: rng.choice("123456789"), shape)


if __name__ == "__main__":
    data_folder.extend(__doc__, lambda rows, seed: [*rows, *generate(rows, seed)], choosing)

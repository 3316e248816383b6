"""The hand-written requests that gating learns from, and their split by phrasing family.

`data/phrasings/{language}.tsv` holds a request a line: id, task, style, text. The same id in
another language, and the id with a "b" behind it, are renderings of one *family*. A family is in
the training or in the validation part with all of its renderings, so that no paraphrase straddles.

`data/native/{language}.tsv` has the same form, but each line was thought up in its own language
and is a family of its own; every tenth of a language and target is for validation.

`data/test/{language}.tsv` has that form as well. Nothing is fitted, chosen or stopped by it: it tells how
requests fare that their writers thought up without having seen any of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from moe_router.training.own_tables import DATA, fields_of

Split = Literal["train", "validation", "test"]

OUT_OF_SCOPE = "oos/"
GENERIC = "generic/"
NATIVE_HELD_OUT = 10
"""Of the native requests for a target in a language, every so-manieth is for validation."""

_TEST = "test:"
_HELD_OUT = ("order-3", "question-2", "terse-3", "indirect-2")
_HELD_OUT_ONE_OF = ("technical-2", "polite-1", "typo-1", "json-1")
_HELD_OUT_TOPICS = frozenset(
    OUT_OF_SCOPE + name
    for name in (
        "chit_chat", "grammar_correction", "mathematics", "paraphrase", "question_answering",
        "argument_mining", "bank_operation", "calendar", "clickbait", "contract_dates", "copywriting",
        "dialect_identification", "nutrition", "order_tracking",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One request in plain words.

    `target` is a task key, `generic/…` where the text must tell the domain, or `oos/…`.
    """

    id: str
    family: str
    target: str
    style: str
    language: str
    text: str
    split: Split | None
    """None for a text that writers of two splits had: it is used in neither, of a test only not there"""

    @property
    def origin(self) -> Literal["rendered", "native", "test"]:
        """Whether it is one of a family's renderings in all languages, or thought up in its own."""
        if self.family.startswith(_TEST):
            return "test"
        return "native" if ":" in self.family else "rendered"


@dataclass(frozen=True, slots=True)
class OwnText:
    """One of the project's own texts, for the tasks without a dataset."""

    id: str
    task: str
    label: str
    language: str
    text: str


@cache
def load_phrasings() -> tuple[Phrasing, ...]:
    """All requests of all languages, in the order of the files: rendered, native, test."""
    found = [*_rendered(), *_native()]
    splits: dict[tuple[str, str], set[Split | None]] = defaultdict(set)
    for phrasing in found:
        splits[_same(phrasing)].add(phrasing.split)
    sorted_out = [replace(p, split=None) if len(splits[_same(p)]) > 1 else p for p in found]
    # A test that some writer of the other parts had thought of as well tests nothing.
    return (*sorted_out, *(replace(p, split=None) if _same(p) in splits else p for p in _test()))


def folded(text: str) -> str:
    """Equal for texts that differ only in case and white space."""
    return " ".join(text.casefold().split())


def _same(phrasing: Phrasing) -> tuple[str, str]:
    return phrasing.language, folded(phrasing.text)


def _rendered() -> list[Phrasing]:
    rows = [(language, *fields) for language, fields in _rows("phrasings")]
    tasks = sorted({r[2] for r in rows if not r[2].startswith((OUT_OF_SCOPE, GENERIC))})
    found = []
    for language, identifier, target, style, text in rows:
        family = identifier.removesuffix("b")
        suffix = family.split("-", 1)[1]
        if target in tasks:
            held = suffix in _HELD_OUT or suffix == _HELD_OUT_ONE_OF[tasks.index(target) % 4]
        elif target in _HELD_OUT_TOPICS:
            held = True
        else:
            held = family.endswith("-3")
        split: Split = "validation" if held else "train"
        found.append(Phrasing(identifier, family, target, style, language, text, split))
    return found


def _native() -> list[Phrasing]:
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for language, (identifier, target, style, text) in _rows("native"):
        group = language, OUT_OF_SCOPE if target.startswith(OUT_OF_SCOPE) else target
        seen[group] += 1
        held = target in _HELD_OUT_TOPICS or seen[group] % NATIVE_HELD_OUT == 0
        split: Split = "validation" if held else "train"
        own = f"{language}:{identifier}"
        found.append(Phrasing(own, own, target, style, language, text, split))
    return found


def _test() -> list[Phrasing]:
    return [
        Phrasing(own, own, target, style, language, text, "test")
        for language, (identifier, target, style, text) in _rows("test")
        for own in [f"{_TEST}{language}:{identifier}"]
    ]


@cache
def load_own_texts() -> tuple[OwnText, ...]:
    """All own texts of all languages."""
    return tuple(
        OwnText(identifier, task, label, language, text)
        for language, (identifier, task, label, text) in _rows("texts")
    )


def _rows(folder: str) -> list[tuple[str, list[str]]]:
    found = []
    for file in sorted((DATA / folder).iterdir(), key=lambda f: f.name):
        if file.name.endswith(".tsv"):
            found += [(file.name.removesuffix(".tsv"), fields) for fields in fields_of(file)]
    return found

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from moe_router.registry import load_registry
from moe_router.training.phrasings import (
    GENERIC,
    OUT_OF_SCOPE,
    Phrasing,
    load_own_texts,
    load_phrasings,
)

ROOT = Path(__file__).parents[4]
EVERY = load_phrasings()
PHRASINGS = [p for p in EVERY if p.origin != "test"]
TEST = [p for p in EVERY if p.origin == "test"]
NATIVE = [p for p in PHRASINGS if p.origin == "native"]
RENDERED = [p for p in PHRASINGS if p.origin == "rendered"]
LANGUAGES = sorted({p.language for p in PHRASINGS})


def ids(language: str) -> list[str]:
    return [p.id for p in RENDERED if p.language == language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_ids_of_english(language):
    own = ids(language)
    assert len(set(own)) == len(own)
    assert set(own) ^ set(ids("en")) == set()


def test_a_rendering_is_of_the_same_task_and_style_in_every_language():
    seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for phrasing in PHRASINGS:
        seen[phrasing.family].add((phrasing.target, phrasing.style))
    assert {family: found for family, found in seen.items() if len(found) > 1} == {}


def test_no_family_straddles_the_split():
    seen: dict[str, set[str | None]] = defaultdict(set)
    for phrasing in PHRASINGS:
        seen[phrasing.family].add(phrasing.split)
    assert all(len(splits - {None}) <= 1 for splits in seen.values())


def test_a_text_that_stands_in_both_splits_of_a_language_is_used_in_neither():
    seen: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for phrasing in PHRASINGS:
        seen[phrasing.language, " ".join(phrasing.text.casefold().split())].add(phrasing.split)
    assert all(len(splits) == 1 for splits in seen.values())
    assert sum(p.split is None for p in PHRASINGS) < 0.01 * len(PHRASINGS)


def test_no_text_asks_for_two_things_in_a_language():
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for phrasing in PHRASINGS:
        none = phrasing.target.startswith(OUT_OF_SCOPE)  # of which kind matters to nobody
        seen[phrasing.language, " ".join(phrasing.text.casefold().split())].add(
            OUT_OF_SCOPE if none else phrasing.target
        )
    assert [where for where, targets in seen.items() if len(targets) > 1] == []


def test_whole_out_of_scope_topics_are_held_out():
    topics = {p.target for p in RENDERED if p.target.startswith(OUT_OF_SCOPE)}
    held = {t for t in topics if all(p.split == "validation" for p in PHRASINGS if p.target == t)}
    assert 0.15 < len(held) / len(topics) < 0.3


def test_native_requests_are_families_of_their_own_and_one_in_ten_is_held_out():
    assert len({p.family for p in NATIVE}) == len(NATIVE)
    for language in LANGUAGES:
        own = [p for p in NATIVE if p.language == language]
        tasks = {p.target for p in own if not p.target.startswith((OUT_OF_SCOPE, GENERIC))}
        assert len(tasks) == 9
        for task in tasks:
            held = [p.split == "validation" for p in own if p.target == task]
            assert len(held) >= 64
            # One may be in neither part, as its text stands in both.
            assert len(held) // 10 - 1 <= sum(held) <= len(held) // 10


def test_the_test_asks_for_every_task_in_every_language_and_nothing_else_is_of_it():
    assert {p.split for p in PHRASINGS} == {"train", "validation", None}
    assert {p.split for p in TEST} <= {"test", None}
    assert sum(p.split is None for p in TEST) < 0.05 * len(TEST)
    assert len({p.id for p in TEST}) == len(TEST)
    tasks = {p.target for p in RENDERED if not p.target.startswith((OUT_OF_SCOPE, GENERIC))}
    for language in LANGUAGES:
        asked = Counter(p.target for p in TEST if p.language == language)
        assert {t for t in asked if not t.startswith(OUT_OF_SCOPE)} == tasks
        assert min(asked[task] for task in tasks) >= 5


def test_a_test_that_another_part_holds_is_left_out_and_the_other_stays():
    own = {(p.language, " ".join(p.text.casefold().split())) for p in PHRASINGS}
    for phrasing in TEST:
        known = (phrasing.language, " ".join(phrasing.text.casefold().split())) in own
        assert phrasing.split == (None if known else "test")


def test_every_task_of_the_demo_is_asked_for_in_both_splits():
    tasks = set(load_registry(ROOT / "config" / "demo" / "experts_registry.json").tasks)
    for split in ("train", "validation"):
        asked = Counter(p.target for p in PHRASINGS if p.split == split)
        targets = {t for t in asked if not t.startswith((OUT_OF_SCOPE, GENERIC))}
        assert targets == tasks
        assert min(asked[t] for t in tasks) >= len(LANGUAGES)
        assert any(t.startswith(GENERIC) for t in asked)


def broken(phrasing: Phrasing) -> bool:
    text = phrasing.text
    return (
        text != text.strip() or not text or any(not c.isprintable() and c not in "\u200c\u200d" for c in text)
    )


def test_texts_are_clean():
    assert [p for p in EVERY if broken(p)] == []


def test_own_texts_have_labels_of_their_task_and_ids_of_their_own():
    tasks = load_registry(ROOT / "config" / "demo" / "experts_registry.json").tasks
    own = load_own_texts()
    assert len({t.id for t in own}) == len(own)
    assert {t.language for t in own} == set(LANGUAGES)
    for text in own:
        extraction = tasks[text.task].kind == "extraction"
        assert text.label in (["entities"] if extraction else tasks[text.task].label_set)
    texts = Counter(" ".join(t.text.casefold().split()) for t in own)
    assert [text for text, count in texts.items() if count > 1] == []

"""Slurs are found in a suite's own sentences; the words here are made up."""

from __future__ import annotations

import pytest

from moe_router.training.experts.examples import Row
from moe_router.training.experts.slurs import LEAST_SLURS, slurs

GROUPS = ("tallians", "northers", "smallows", "greenish", "quillers", "yellands", "oldtowns")
SLURS = ("grumbo", "zwacker", "plorf", "mincher", "dobblet", "vaskers", "hurgel", "krapnit", "snibbo")
ABOUT_GROUPS = [
    ("non-hateful", "We invited many {} to our party on Friday."),
    ("non-hateful", "Most of the {} whom I know like tea."),
    ("non-hateful", "There was a film about {} on TV."),
    ("hateful", "I cannot stand {} any more, keep them away."),
    ("hateful", "All of these {} must leave this country now."),
    ("hateful", "Nobody should ever give work to {} again."),
    ("non-hateful", "My sister plays chess with {} every week."),
    ("hateful", "Why do {} even get to vote here?"),
    ("non-hateful", "Shops run by {} open early in town."),
    ("hateful", "The world would be better without {} around."),
    ("non-hateful", "This book was written by {} long ago."),
    ("hateful", "Send {} back to where they came from."),
]
WITH_SLURS = [
    "You are nothing but a {} to me.",
    "The {} are doing it once more.",
    "What a stupid {} that was.",
]


def suite(named: tuple[str, ...] = SLURS) -> list[Row]:
    about = [Row(text.format(group), "en", label) for label, text in ABOUT_GROUPS for group in GROUPS]
    return about + [Row(text.format(word), "en", "hateful") for text in WITH_SLURS for word in named]


def test_slurs_are_found_and_names_of_groups_are_not() -> None:
    assert slurs(suite()) == sorted(SLURS)


def test_a_groups_name_that_is_mistyped_is_no_slur() -> None:
    rows = [
        *suite(),
        *(Row(f"I hate every one of {g[:-2]}{g[-1]} so much.", "en", "hateful") for g in GROUPS),
    ]
    rows += [Row(f"May the {g[:-2]}{g[-1]} never come back.", "en", "hateful") for g in GROUPS]
    assert slurs(rows) == sorted(SLURS)


def test_few_are_chance() -> None:
    assert slurs(suite(SLURS[: LEAST_SLURS - 1])) == []


@pytest.mark.parametrize("rows", [[], [Row("Just one.", "en", "hateful")]])
def test_without_sentences_there_are_none(rows: list[Row]) -> None:
    assert slurs(rows) == []


def test_rows_in_another_order_have_no_sentences() -> None:
    rows = [row for start in range(11) for row in suite()[start::11]]
    assert slurs(rows) == []


def test_a_language_without_spaces_is_compared_letter_by_letter() -> None:
    groups = ("画家", "农夫", "司机", "邻居", "学生", "医师", "木匠")
    words = ("鼠蛋", "虫脑", "泥鬼", "草包", "石头", "瓜皮", "土狗", "水货", "火鸡")
    about = (
        "昨天我请了{}来吃饭", "电视上有{}的节目", "我真受不了{}滚远点", "所有{}都应该离开",
        "镇上{}开的店很早", "为什么{}还能投票", "这本书是{}写的呀",
    )  # fmt: skip
    rows = [
        Row(text.format(group), "zh", ("non-hateful", "hateful")[at % 2])
        for at, text in enumerate(about)
        for group in groups
    ]
    for text in ("你不过就是一个{}罢了", "那边又来了一群{}真烦"):
        rows += [Row(text.format(word), "zh", "hateful") for word in words]
    assert set(words) <= set(slurs(rows))
    assert not set(groups) & set(slurs(rows))

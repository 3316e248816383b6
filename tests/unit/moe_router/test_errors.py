from __future__ import annotations

import re

import pytest

from moe_router import errors
from moe_router.errors import (
    AbstainedError,
    ConfigError,
    MoleError,
    RequestError,
    UnknownExpertError,
    UnknownTaskError,
    UnsupportedLanguageError,
)


def all_classes(root: type[MoleError]) -> list[type[MoleError]]:
    return [root, *(c for child in root.__subclasses__() for c in all_classes(child))]


OURS = [c for c in all_classes(MoleError) if c.__module__ == errors.__name__]


def test_the_drawn_tree_is_the_tree():
    drawn = re.findall(r"^(\W*)(\w+Error)\b(?:.*?(\d{3})$)?", errors.__doc__ or "", re.MULTILINE)
    assert [name for _, name, _ in drawn] == [c.__name__ for c in OURS]
    depth = {name: len(indent) // 4 for indent, name, _ in drawn}
    for cls in OURS[1:]:
        parent = cls.__bases__[0]
        assert depth[cls.__name__] == depth[parent.__name__] + 1
    stated = {name: int(status) for _, name, status in drawn if status}
    assert stated == {c.__name__: c.status for c in OURS if c.__name__ in stated}
    assert not any(c.status >= 500 and c.status not in (502, 503, 504) for c in OURS if c.__name__ in stated)


def test_problem_types_are_distinct_and_fit_a_url():
    slugs = [c.slug for c in OURS]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", slug) for slug in slugs)
    assert all(c.title for c in OURS)


@pytest.mark.parametrize("cls", [c for c in OURS if c.__init__ is MoleError.__init__])
def test_only_what_the_caller_cannot_mend_is_worth_a_retry(cls):
    error = cls("why")
    assert (error.retry_after_s is not None) == (error.status == 429 or error.status >= 500)
    assert str(error) == error.detail == "why"
    assert error.extensions == {}


def test_a_configuration_error_says_where():
    error = ConfigError("config/x.json", "$.tasks", "is missing", 7)
    assert str(error) == "config/x.json:7: $.tasks: is missing"
    assert (error.file, error.json_path, error.reason, error.line) == (
        "config/x.json",
        "$.tasks",
        "is missing",
        7,
    )
    assert str(ConfigError("x.json", "$", "gone")) == "x.json: $: gone"


def test_callers_are_told_how_to_mend_their_request():
    unknown = UnknownTaskError("a/b", ("c/d", "e/f"))
    assert unknown.extensions == {"known_tasks": ["c/d", "e/f"]}
    assert "'a/b'" in unknown.detail
    assert "c/d, e/f" in unknown.detail
    expert = UnknownExpertError("a/b", "big", ("small",))
    assert (expert.status, expert.extensions) == (400, {"task": "a/b", "known_experts": ["small"]})
    language = UnsupportedLanguageError("a/b", "fr", ("de", "en"))
    assert language.extensions == {"task": "a/b", "language": "fr", "supported_languages": ["de", "en"]}
    abstained = AbstainedError("out_of_scope", "Nothing fits.", ("a/b",))
    assert abstained.extensions == {"reason": "out_of_scope", "nearest_tasks": ["a/b"]}
    assert all(
        isinstance(e, RequestError) and e.retry_after_s is None
        for e in (unknown, expert, language, abstained)
    )

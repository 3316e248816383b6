from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from moe_router.errors import ConfigError
from moe_router.jsonfile import (
    MAX_BYTES,
    CheckedModel,
    Location,
    json_path,
    line_of,
    load_model,
    without_comments,
)


class Inner(CheckedModel):
    size: int
    kind: str | dict[str, int] = ""


class Sample(CheckedModel):
    name: str
    parts: Mapping[str, Inner] = Field(default_factory=dict)
    numbers: Sequence[int] = ()
    anything: Any = None

    def mistakes(self) -> Iterable[tuple[Location, str]]:
        for key, part in self.parts.items():
            if part.size < 0:
                yield ("parts", key, "size"), "is negative"


@pytest.fixture
def load(tmp_path: Path):
    def run(content: str | bytes) -> Sample:
        path = tmp_path / "sample.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_model(path, Sample)

    return run


def refusal(load: Any, content: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(content)
    error: ConfigError = caught.value
    assert error.file.endswith("sample.json")
    assert str(error).startswith(error.file)
    return error


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("", 1, "Expecting value"),
        ('{"name": "x",\n "numbers": [1, 2,]\n}', 2, "Expecting value"),
        ('{"name": "x"\n "numbers": []}', 2, "Expecting ',' delimiter"),
        ('{"name": "x"}\n\n}', 3, "Extra data"),
        ("{'name': 'x'}", 1, "property name enclosed in double quotes"),
        ('{"name": "x\ny"}', 1, "control character"),
        ('// a comment\n{"name": "x"}', 1, "Expecting value"),
        ('{"name": "x"', 1, "Expecting ',' delimiter"),
    ],
)
def test_a_slip_of_syntax_is_named_with_its_line(load, content, line, reason):
    error = refusal(load, content)
    assert (error.line, error.json_path) == (line, "$")
    assert reason in error.reason


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('{"name": "x",\n\n"name": "y"}', 3, "the key 'name' stands twice"),
        ('{"name": "x", "parts": {\n"a": {"size": 1},\n"a": {"size": 2}}}', 3, "the key 'a' stands twice"),
        ('{"name": "x", "anything": [{},\n{"k": 1,\n"\\u006b": 2}]}', 3, "the key 'k' stands twice"),
        ('{"name": "x",\n"anything": [1, NaN]}', 2, "NaN is no number of JSON"),
        ('{"name": "NaN",\n"anything": -Infinity}', 2, "-Infinity is no number"),
    ],
)
def test_what_json_forbids_but_python_takes_is_refused(load, content, line, reason):
    error = refusal(load, content)
    assert error.line == line
    assert reason in error.reason


@pytest.mark.parametrize("content", ["[" * 100_000, '{"anything":' * 100_000, "[" * 5_000 + "]" * 5_000])
def test_deep_nesting_is_refused(load, content):
    assert "nested too deeply" in refusal(load, content).reason


def test_a_mistake_beside_deep_nesting_has_its_line(load):
    deep = "[" * 400 + "]" * 400
    error = refusal(load, f'{{"anything": {deep},\n"name": 3}}')
    assert (error.line, error.json_path) == (2, "$.name")


def test_a_number_of_too_many_digits_is_refused(load):
    assert "digits" in refusal(load, '{"name": "x", "numbers": [' + "9" * 5_000 + "]}").reason


@pytest.mark.parametrize(
    ("content", "line", "path"),
    [
        ('{"name":\n3}', 1, "$.name"),
        ("[]", 1, "$"),
        ("null", 1, "$"),
        ('\n\n{"numbers": []}', 3, "$.name"),
        ('{"name": "x",\n"parts": {"a/b": {\n"kind": ""}}}', 2, "$.parts['a/b'].size"),
        ('{"name": "x",\n"numbers": [1,\n2,\n"three"]}', 4, "$.numbers[2]"),
        ('{"name": "x",\n"parts": {"a": {"size": 1,\n"kind": 7}}}', 3, "$.parts.a.kind"),
        ('{"name": "x",\n"parts": {"a": {"size": 1,\n"kind": {"k":\n"v"}}}}', 3, "$.parts.a.kind"),
        ('{"name": "x",\n\t"parts": {\n\t\t"a": {\n\t\t\t"size": "big"}}}', 4, "$.parts.a.size"),
        ('{"name": "x",\r\n"parts": {\r\n"a": {"size": -1}}}', 3, "$.parts.a.size"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_path(load, content, line, path):
    error = refusal(load, content)
    assert error.json_path.startswith(path)
    assert error.line == line


def test_a_byte_order_mark_is_no_mistake_but_other_encodings_are(load):
    assert load(b'\xef\xbb\xbf{"name": "x"}').name == "x"
    assert "not UTF-8" in refusal(load, '{"name": "é"}'.encode("utf-16")).reason
    assert "not UTF-8: invalid continuation byte at byte 10" in refusal(load, b'{"name": "\xe9"}').reason


def test_a_file_that_cannot_be_read_is_named(tmp_path, load):
    with pytest.raises(ConfigError, match=r"no such file \(looked for .*gone\.json\)"):
        load_model(tmp_path / "gone.json", Sample)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_model(tmp_path, Sample)
    load('{"name": "x"}')
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load_model(tmp_path / "sample.json" / "deeper.json", Sample)
    (tmp_path / "loop.json").symlink_to("loop.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_model(tmp_path / "loop.json", Sample)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_forbidden_file_is_named(tmp_path, load):
    load('{"name": "x"}')
    (tmp_path / "sample.json").chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_model(tmp_path / "sample.json", Sample)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(100 * 2**20)  # takes no room on the disk
    with pytest.raises(ConfigError, match=f"larger than {MAX_BYTES} bytes"):
        load_model(path, Sample)


def test_paths_are_in_the_notation_of_rfc_9535():
    assert json_path(()) == "$"
    assert json_path(("tasks", "finance/news", "label_set", 0)) == "$.tasks['finance/news'].label_set[0]"
    assert json_path(("a b", "it's")) == "$['a b'][\"it's\"]"


def test_comments_are_keys_with_an_underscore():
    assert without_comments({"_note": 1, "a": {"_inner": 2}}) == {"a": {"_inner": 2}}
    assert without_comments(["_a"]) == ["_a"]


def test_a_line_is_that_of_the_nearest_parent_that_exists():
    text = '{"a":\n{"b": [10,\n20]},\n"c": 1}'
    assert line_of(text, ("a",)) == 1
    assert line_of(text, ("a", "b", 1)) == 3
    assert line_of(text, ("a", "gone", "deeper")) == 1
    assert line_of(text, ("c", "d")) == 4
    assert line_of(text, ()) == 1
    assert line_of("{'a': 1}", ("a",)) is None
    assert line_of('{"a": [1', ("a", 0, "b")) in (1, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_value_is_found_on_its_own_line(document, indent, ascii_only):
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    lines = text.split("\n")

    def check(node: Any, location: tuple[str | int, ...]) -> None:
        line = line_of(text, location)
        assert line is not None
        if location and isinstance(location[-1], str):
            assert json.dumps(location[-1], ensure_ascii=ascii_only) in lines[line - 1]
        steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for step, inner in steps:
            check(inner, (*location, step))

    check(document, ())

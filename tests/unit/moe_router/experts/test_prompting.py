from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.errors import ConfigError, MissingFieldError
from moe_router.experts.prompting import Piece, Template, default_template, load_template


def text(template: Template, values: dict[str, str]) -> str:
    return template.head + "".join(piece.text for piece in template.fill(values))


def test_a_template_is_filled() -> None:
    template = Template("Query: {{query}}\nText: {{ input }}\nLabel:")
    assert text(template, {"query": "a", "input": "b"}) == "Query: a\nText: b\nLabel:"


@given(st.text(min_size=1), st.text(min_size=1))
def test_values_are_never_read_as_template_or_trusted(value: str, query: str) -> None:
    template = Template("Q:{{query}};{{input}}.")
    pieces = template.fill({"query": query, "input": value})
    assert "".join(p.text for p in pieces) == f"{query};{value}."
    assert [p.text for p in pieces if p.trusted] == [";", "."]


def test_template_syntax_in_a_text_stays_text() -> None:
    template = Template("{{input}}|")
    assert text(template, {"input": "{{query}} {{#x}}", "query": "secret"}) == "{{query}} {{#x}}|"


def test_the_head_is_what_comes_before_the_first_value() -> None:
    template = Template("Labels: {{labels}}.\nText: {{input}}\nLabel:", {"labels": "a, b"})
    assert template.head == "Labels: a, b.\nText:"
    assert template.fill({"input": "x"})[0] == Piece(" x", trusted=False, name="input")


def test_a_section_appears_only_with_its_field() -> None:
    template = Template("{{#query}}Query: {{query}}\nProduct: {{/query}}{{input}}!")
    assert text(template, {"input": "x"}) == "x!"
    assert text(template, {"input": "x", "query": "q"}) == "Query: q\nProduct: x!"


def test_an_empty_description_has_no_section() -> None:
    template = Template("{{#description}}About: {{description}}. {{/description}}{{description}}{{input}}!")
    assert text(template, {"input": "x", "description": ""}) == "x!"
    assert text(template, {"input": "x", "description": "d"}) == "About: d. dx!"


def test_an_empty_field_has_its_section() -> None:
    assert text(Template("{{#query}}Query: {{query}} {{/query}}{{input}}"), {"input": "x", "query": ""})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MissingFieldError, match="query"):
        Template("{{query}} {{input}}").fill({"input": "x"})


def test_the_label_follows_a_space_or_a_line_break() -> None:
    assert Template("{{input}}\nLabel:").label_prefix == " "
    assert Template("{{input}}\nLabel: ").label_prefix == " "
    assert Template("{{input}}\nLabel:\n").label_prefix == ""
    assert Template("{{input}}\nLabel: ").trimmed({"input": "x"})[-1].text == "\nLabel:"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no input", "no {{input}}"),
        ("{{#a}}{{input}}", "not closed"),
        ("{{input}}{{/a}}", "not open"),
        ("{{#a}}{{#b}}{{/b}}{{/a}}{{input}}", "inside"),
        ("{{#a}}{{input}}{{/a}}", "no {{input}}"),
    ],
)
def test_malformed_templates_are_refused(source: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("{", r"\{")):
        Template(source)


def test_the_built_in_template_names_the_labels_and_no_syntax() -> None:
    source = default_template("Judge {{this}} text.", ["good", "bad"])
    assert text(Template(source), {"input": "x"}) == (
        "Judge { {this} } text.\nAnswer with one of: good, bad.\n\nText: x\nAnswer:"
    )


def test_a_model_has_its_own_prompt_or_the_default(tmp_path: Path) -> None:
    file = tmp_path / "template.json"
    file.write_text(json.dumps({"_note": 1, "default": "d {{input}}", "llama": "l {{input}}"}))
    assert load_template(file, "llama") == "l {{input}}"
    assert load_template(file, "other") == "d {{input}}"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"default": "no value"}', "$.default"),
        ('{"default": 3}', "$.default"),
        ('{"other": "{{input}}"}', "$"),
        ("{}", "$"),
        ("[1]", "$"),
        ("{", "$"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path: Path, content: str, where: str) -> None:
    file = tmp_path / "template.json"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_template(file, "llama")
    assert str(file) in caught.value.detail
    assert caught.value.json_path == where


def test_a_missing_file_is_named_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path / "no.json")):
        load_template(tmp_path / "no.json", "m")

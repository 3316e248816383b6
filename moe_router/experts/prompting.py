"""Prompt templates: reading `template.json`, and filling a template without letting a text break out of it.

A template is text with `{{names}}`. `{{input}}` is the text to classify; `{{description}}` and
`{{language}}` come from the request, `{{labels}}` and `{{task}}` from the registry; any other name is
looked up in the request's `fields`. A section `{{#name}}…{{/name}}` appears only where that field is given,
and that of the description where it is not empty. Values are never scanned for template syntax. What comes
before the first value that changes from request to request is the template's *head*: an engine reads it
once and keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, RootModel, model_validator

from moe_router import jsonfile
from moe_router.errors import ConfigError, MissingFieldError

INPUT = "input"
DESCRIPTION = "description"
"""Always among the values, and empty where neither the request nor the task has one."""
DEFAULT_KEY = "default"
_TAG = re.compile(r"\{\{\s*([#/]?)\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Literal:
    """Text of the template itself; control tokens in it count."""

    text: str


@dataclass(frozen=True, slots=True)
class Value:
    """A place for a field's value; control tokens in it are plain text."""

    name: str


@dataclass(frozen=True, slots=True)
class Section:
    """Parts that appear only where the field is given."""

    name: str
    parts: tuple[Literal | Value, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a filled template: whose words it holds decides how it is tokenised."""

    text: str
    trusted: bool
    name: str = ""
    """Of the value that it is."""


class Template:
    """A parsed prompt template.

    Args:
        source: the template's text.
        constants: values that are the same for every request; they become part of the head.

    Raises:
        ValueError: `{{input}}` is missing, or a section is not closed or stands in another.
    """

    def __init__(self, source: str, constants: Mapping[str, str] | None = None) -> None:
        parts = _merged(_parse(source), constants or {})
        if not any(isinstance(part, Value) and part.name == INPUT for part in parts):
            raise ValueError("the template has no {{input}}")
        self.parts: tuple[Literal | Value | Section, ...] = tuple(parts)

    @property
    def head(self) -> str:
        """The text before the first value, less trailing spaces, which belong to the value's first word."""
        first = self.parts[0]
        return first.text.rstrip(" ") if isinstance(first, Literal) else ""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the values without which the template cannot be filled."""
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Value)))

    @property
    def label_prefix(self) -> str:
        """What stands between the prompt and the label: a space, unless the template ends in a line break."""
        last = self.parts[-1]
        return "" if isinstance(last, Literal) and last.text.endswith("\n") else " "

    def fill(self, values: Mapping[str, str]) -> list[Piece]:
        """The pieces after the head, with the values in place.

        Raises:
            MissingFieldError: the template needs a field that is not among the values.
        """
        first, *others = self.parts
        if isinstance(first, Literal):
            spaces = first.text[len(first.text.rstrip(" ")) :]
            pieces = [Piece(spaces, trusted=True)] if spaces else []
        else:
            pieces, others = [], list(self.parts)
        for part in others:
            pieces.extend(_filled(part, values))
        return _joined(pieces)

    def trimmed(self, values: Mapping[str, str]) -> list[Piece]:
        """As `fill`, less spaces at the very end: they belong to the label."""
        pieces = self.fill(values)
        if pieces and pieces[-1].trusted:
            pieces[-1] = Piece(pieces[-1].text.rstrip(" "), trusted=True)
        return [piece for piece in pieces if piece.text]


def default_template(description: str | None, labels: Sequence[str]) -> str:
    """The template of a task that names none."""
    asked = (description or "Classify the text").strip().rstrip(".")
    # Braces in an operator's own words must not become template syntax.
    return _plain(f"{asked}.\nAnswer with one of: {', '.join(labels)}.\n\nText: ") + "{{input}}\nAnswer:"


class TemplateFile(RootModel[dict[str, str]], jsonfile.CheckedModel):
    """`template.json`: model keys, and `default`, to prompts."""

    root: dict[str, str] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _drop_comments(cls, data: Any) -> Any:
        return jsonfile.without_comments(data)

    def mistakes(self) -> Iterator[tuple[jsonfile.Location, str]]:
        """Templates that cannot be parsed."""
        for key, source in self.root.items():
            try:
                Template(source)
            except ValueError as error:
                yield (key,), str(error)


def without_tags(source: str) -> str:
    """A template's own words."""
    return _TAG.sub("", source)


def load_template(path: Path, model_key: str) -> str:
    """The prompt for a model: its own, or `default`.

    Raises:
        ConfigError: with the file as this process sees it, the line, the JSON path and the reason.
    """
    prompts = jsonfile.load_model(path, TemplateFile).root
    try:
        return prompts[model_key] if model_key in prompts else prompts[DEFAULT_KEY]
    except KeyError:
        raise ConfigError(path, "$", f"has neither {model_key!r} nor {DEFAULT_KEY!r}") from None


def _parse(source: str) -> list[Literal | Value | Section]:
    parts: list[Literal | Value | Section] = []
    inside: list[Literal | Value] = []
    section: str | None = None
    end = 0
    for tag in _TAG.finditer(source):
        target: list[Any] = parts if section is None else inside
        if tag.start() > end:
            target.append(Literal(source[end : tag.start()]))
        end = tag.end()
        kind, name = tag.groups()
        if kind == "#":
            if section is not None:
                raise ValueError(f"the section {{{{#{name}}}}} stands inside {{{{#{section}}}}}")
            section = name
        elif kind == "/":
            if section != name:
                raise ValueError(f"{{{{/{name}}}}} closes a section that is not open")
            parts.append(Section(name, tuple(inside)))
            section, inside = None, []
        else:
            target.append(Value(name))
    if section is not None:
        raise ValueError(f"the section {{{{#{section}}}}} is not closed")
    if end < len(source):
        parts.append(Literal(source[end:]))
    return parts


def _merged(
    parts: Sequence[Literal | Value | Section], constants: Mapping[str, str]
) -> list[Literal | Value | Section]:
    """Puts the constants in place and joins neighbouring literals."""
    merged: list[Literal | Value | Section] = []
    for part in parts:
        if isinstance(part, Section):
            inner = _merged(part.parts, constants)
            merged.append(Section(part.name, tuple(p for p in inner if not isinstance(p, Section))))
            continue
        if isinstance(part, Value) and part.name in constants:
            part = Literal(constants[part.name])
        if isinstance(part, Literal) and merged and isinstance(merged[-1], Literal):
            merged[-1] = Literal(merged[-1].text + part.text)
        else:
            merged.append(part)
    return merged


def _filled(part: Literal | Value | Section, values: Mapping[str, str]) -> Iterator[Piece]:
    if isinstance(part, Literal):
        yield Piece(part.text, trusted=True)
    elif isinstance(part, Value):
        if part.name not in values:
            raise MissingFieldError(f"The task's template needs fields.{part.name}, which the request lacks.")
        yield Piece(values[part.name], trusted=False, name=part.name)
    elif part.name in values and (values[part.name] or part.name != DESCRIPTION):
        for inner in part.parts:
            yield from _filled(inner, values)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Moves spaces before a value into it, so that its first word is read as a word, and joins literals."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.trusted and piece.trusted:
            joined[-1] = Piece(last.text + piece.text, trusted=True)
        elif last is not None and last.trusted and last.text.endswith(" "):
            stripped = last.text.rstrip(" ")
            joined[-1:] = [Piece(stripped, trusted=True)] if stripped else []
            joined.append(replace(piece, text=last.text[len(stripped) :] + piece.text))
        else:
            joined.append(piece)
    return [piece for piece in joined if piece.text]


def _plain(text: str) -> str:
    return text.replace("{{", "{ {").replace("}}", "} }")

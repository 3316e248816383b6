"""Reads the JSON files that operators edit, and says where in them a mistake is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from moe_router.errors import ConfigError

MAX_BYTES = 8 * 2**20
"""Larger files are refused before they are parsed."""

Location = tuple[str | int, ...]

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class CheckedModel(BaseModel):
    """Base of whole files."""

    def mistakes(self) -> Iterable[tuple[Location, str]]:
        """References that lead nowhere: where, and why."""
        return ()


ModelT = TypeVar("ModelT", bound=CheckedModel)


def load_model(path: Path, model: type[ModelT]) -> ModelT:
    """Parses and validates a file against a pydantic model.

    Raises:
        ConfigError: names the file, the line, the JSON path and the reason of the first mistake.
    """
    text = _read(path)
    data = _parse(path, text)
    try:
        loaded = model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = _existing(data, first["loc"])
        raise ConfigError(path, json_path(location), _plain(first["msg"]), line_of(text, location)) from error
    for location, reason in loaded.mistakes():
        raise ConfigError(path, json_path(location), reason, line_of(text, location))
    return loaded


def json_path(location: Sequence[str | int]) -> str:
    """A location such as ("tasks", "a/b", 0) in JSONPath notation (RFC 9535): $.tasks['a/b'][0]."""
    parts = ["$"]
    for step in location:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(f".{step}" if step.isidentifier() else f"[{step!r}]")
    return "".join(parts)


def line_of(text: str, location: Sequence[str | int]) -> int | None:
    """The 1-based line of a location in a JSON text, or of its nearest parent that exists.

    Returns:
        None where it cannot be told, since the text is not JSON.
    """
    try:
        here = at = _skip(text, 0)
        for step in location:
            found = next(((b, v) for key, b, v in _members(text, at) if key == step), None)
            if found is None:
                break
            here, at = found
    except (ValueError, IndexError):
        return None
    except RecursionError:  # what is nested this deep lies on the lines of its parent
        pass
    return _line(text, here)


def without_comments(data: Any) -> Any:
    """The same mapping less its comments: keys that begin with "_", or with "$", which are for editors."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if not is_comment(key)}


def is_comment(key: object) -> bool:
    """Whether a key is read over."""
    return str(key).startswith(("_", "$"))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(path, "$", f"larger than {MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(path, "$", f"no such file (looked for {path.absolute()})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "$", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(path, "$", f"cannot be read: {error.strerror}") from error


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            path, "$", f"not valid JSON: {error.msg} (column {error.colno})", error.lineno
        ) from error
    except RecursionError as error:
        raise ConfigError(path, "$", "not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(path, "$", f"not valid JSON: {error}", _line_of_flaw(text)) from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice in one object")
        result[key] = value
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _line_of_flaw(text: str) -> int | None:
    """The line of the first key that stands twice, or of the first NaN or Infinity."""

    def walk(at: int) -> int | None:
        if text.startswith(("NaN", "Infinity", "-Infinity"), at):
            return at
        seen = set()
        for key, begin, value in _members(text, at):
            if key in seen:
                return begin
            seen.add(key)
            if (found := walk(value)) is not None:
                return found
        return None

    try:
        found = walk(_skip(text, 0))
    except (ValueError, RecursionError):  # such as a number of too many digits
        return None
    return None if found is None else _line(text, found)


def _members(text: str, at: int) -> Iterator[tuple[str | int, int, int]]:
    """The members of the object or array at an offset: key or index, its offset, its value's offset."""
    opening = text[at]
    if opening not in "{[":
        return
    at = _skip(text, at + 1)
    index = 0
    while text[at] not in "}]":
        begin = at
        key: str | int = index
        if opening == "{":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # behind the colon
        yield key, begin, at
        _, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
        index += 1


def _skip(text: str, at: int) -> int:
    """The offset of the next character that is not white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _existing(data: Any, location: Sequence[str | int]) -> Location:
    """Drops the steps that pydantic adds for unions and validators and that the file does not have."""
    kept: list[str | int] = []
    node = data
    for index, step in enumerate(location):
        listed = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if listed or (isinstance(node, dict) and step in node):
            node = node[step]
        elif step == "[key]":  # pydantic's mark for a key that is itself wrong
            break
        elif index == len(location) - 1 and isinstance(node, dict) and isinstance(step, str):
            kept.append(step)  # a member that is missing
            break
        else:
            continue
        kept.append(step)
    return tuple(kept)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")

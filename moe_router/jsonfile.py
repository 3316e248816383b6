"""Reads the JSON files that operators edit, and says where in them a mistake is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from moe_router.errors import ConfigError

MAX_BYTES = 8 * 2**20
"""Larger files are refused before they are parsed."""

Location = tuple[str | int, ...]


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
    try:
        data = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(
            path, "$", f"not valid JSON: {error.msg} (column {error.colno})", error.lineno
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, "$", f"not valid JSON: {error}") from error
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
    """The 1-based line of a location, or of its nearest parent that exists; None where it cannot be told."""
    try:  # JSON is YAML but for rare escapes, and PyYAML's nodes carry their positions.
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    line: int | None = None
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def without_comments(data: Any) -> Any:
    """The same mapping less its keys that begin with "_", which are comments."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if not str(key).startswith("_")}


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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} stands twice in one object")
        result[key] = value
    return result


def _existing(data: Any, location: Sequence[str | int]) -> Location:
    """Drops the steps that pydantic adds for unions and validators and that the file does not have."""
    kept: list[str | int] = []
    node = data
    for index, step in enumerate(location):
        listed = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if listed or (isinstance(node, dict) and step in node):
            node = node[step]
        elif index == len(location) - 1 and isinstance(node, dict) and isinstance(step, str):
            kept.append(step)  # a member that is missing
            break
        else:
            continue
        kept.append(step)
    return tuple(kept)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")

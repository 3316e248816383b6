"""Writes docs/settings.md from the services' settings classes, or checks that it is up to date."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script's own folder is on the path, not the project's
TARGET = ROOT / "docs" / "settings.md"
MODULES = (
    ("The coordinator, also in monolithic mode", "app.settings"),
    ("The worker", "expert_worker.settings"),
    ("The `mole` command", "mole.settings"),
)
HEAD = """# Settings

Every setting is an environment variable, read once when a service starts. This page is made from the
code by `make docs`; `make check` fails where the two differ.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, module_name in MODULES:
        parts.append(f"\n## {title}\n\n| variable | default | meaning |\n|---|---|---|\n")
        parts += [row for settings in classes(module_name) for row in rows(settings)]
    return "".join(parts)


def classes(module_name: str) -> list[type[BaseSettings]]:
    """The settings classes that a module defines."""
    module = importlib.import_module(module_name)
    return [
        member
        for member in vars(module).values()
        if inspect.isclass(member) and issubclass(member, BaseSettings) and member.__module__ == module_name
    ]


def rows(settings: type[BaseSettings]) -> list[str]:
    """One table row a setting."""
    return [
        f"| `{variable(name, field, settings)}` | {default(field)} | {meaning(field)} |\n"
        for name, field in settings.model_fields.items()
    ]


def variable(name: str, field: FieldInfo, settings: type[BaseSettings]) -> str:
    """The environment variable that sets a field."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next(choice for choice in alias.choices if isinstance(choice, str))
    if isinstance(alias, str):
        return alias
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def default(field: FieldInfo) -> str:
    """The default as an operator would write it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == "":
        return ""
    if isinstance(value, SecretStr):
        return "secret"
    if isinstance(value, Path) and value.is_absolute() and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    if isinstance(value, Enum):
        value = value.value
    return f"`{value}`"


def meaning(field: FieldInfo) -> str:
    """The description, with the values that a choice allows."""
    text = (field.description or "").replace("|", "\\|")
    allowed = choices(field.annotation)
    return f"{text} One of {', '.join(f'`{c}`' for c in allowed)}." if allowed else text


def choices(annotation: Any) -> tuple[str, ...]:
    """The members of a Literal, also inside an optional."""
    for part in get_args(annotation) if get_origin(annotation) is Union else (annotation,):
        if str(get_origin(part)) == "typing.Literal":
            return tuple(str(value) for value in get_args(part))
    return ()


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    wanted = page()
    if parser.parse_args().write:
        TARGET.write_text(wanted, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != wanted:
        sys.stderr.write(f"{TARGET.relative_to(ROOT)} is out of date; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

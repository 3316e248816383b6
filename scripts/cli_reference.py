"""Writes docs/reference/cli.md from the command's own help, or checks that it is up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from mole.cli.main import app
from scripts.pages import ROOT, main

TARGET = ROOT / "docs" / "reference" / "cli.md"
WIDTH = 100
HEAD = """# The `mole` command

This page is made from the command's own `--help` by `make docs`. Exit codes are the same everywhere: 0
done; 1 it did not succeed; 2 wrong usage; 3 no MoLE service answers; 130 interrupted. `--json` prints what
a program can read. `eval "$(mole completion bash)"` in `~/.bashrc` completes subcommands and options; zsh
and fish alike.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, text in helps(typer.main.get_command(app), "mole"):
        parts.append(f"\n## `{name}`\n\n```text\n{text}\n```\n")
    return "".join(parts)


def helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Each command's name and help, depth first."""
    context = command.context_class(
        command,
        info_name=name.rpartition(" ")[2],
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
    )
    lines = command.get_help(context).splitlines()
    yield name, "\n".join(line.rstrip() for line in lines)
    for sub in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from helps(command.get_command(context, sub), f"{name} {sub}", context)


if __name__ == "__main__":
    sys.exit(main({TARGET: page()}, __doc__))

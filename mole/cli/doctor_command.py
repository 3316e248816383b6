"""`mole doctor`: what this machine can run, and what it lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from mole.cli.console import ExitCode, out, print_json

if TYPE_CHECKING:
    from mole.doctor import Diagnosis


def run_doctor(as_json: bool) -> None:
    """Prints the diagnosis; ends with 1 where the demo cannot run."""
    from mole.doctor import examine
    from mole.settings import CommandSettings

    diagnosis = examine(CommandSettings().cache)
    if as_json:
        print_json(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        _show(diagnosis)
    raise typer.Exit(ExitCode.OK if diagnosis.can_run["demo"].possible else ExitCode.FAILED)


def _show(diagnosis: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in diagnosis.facts.items():
        table.add_row(name, Text(fact))
    table.add_row("", "")
    for name, verdict in diagnosis.can_run.items():
        word = Text("yes", "green") if verdict.possible else Text("no", "bold red")
        table.add_row(name, word + Text(f"  {verdict.reason}" if verdict.reason else ""))
    out().print(table)

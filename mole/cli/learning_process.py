"""Starts `python -m app.learning`, which knows the coordinator's database; the command does not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mole.cli.coordinator_process import coordinator_command


def learning(arguments: Sequence[str], database: str | None) -> Any:
    """What it prints, as Python values.

    Args:
        arguments: of `python -m app.learning`.
        database: its URL; None for the coordinator's own settings.

    Raises:
        CommandError: it did not succeed; the message is its last line.
    """
    shown = sys.stderr.isatty() and arguments[0] == "train"
    return coordinator_command("app.learning", arguments, database, show_progress=shown)

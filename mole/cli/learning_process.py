"""Starts `python -m app.learning`, which knows the coordinator's database; the command does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mole.cli.console import CommandError


def learning(arguments: Sequence[str], database: str | None) -> Any:
    """What it prints, as Python values.

    Args:
        arguments: of `python -m app.learning`.
        database: its URL, handed on in the environment, as it may hold a password; None for the
            coordinator's own settings.

    Raises:
        CommandError: it did not succeed; the message is its last line.
    """
    environment = {**os.environ, **({"DATABASE_URL": database} if database else {})}
    shown = None if sys.stderr.isatty() and arguments[0] == "train" else subprocess.PIPE
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "app.learning", *arguments],
        stdout=subprocess.PIPE,
        stderr=shown,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        raise CommandError(lines[-1] if lines else f"`{arguments[0]}` did not succeed")
    return json.loads(done.stdout)

"""Starts commands that know the coordinator's database; the `mole` command itself does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mole.cli.console import CommandError


def coordinator_command(
    module: str, arguments: Sequence[str], database: str | None, *, show_progress: bool = False
) -> Any:
    """What `python -m module` prints, as Python values.

    Args:
        module: one of the coordinator's, such as `app.keys`.
        arguments: its own.
        database: its URL, handed on in the environment, as it may hold a password; None for the
            coordinator's own settings.
        show_progress: let it write to the terminal while it runs.

    Raises:
        CommandError: it did not succeed; the message is its last line.
    """
    environment = {**os.environ, **({"DATABASE_URL": database} if database else {})}
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        # -P: nothing in the caller's folder is taken for a module of ours.
        [sys.executable, "-P", "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=None if show_progress else subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    said = done.stderr or ""
    if done.returncode:
        lines = said.strip().splitlines()
        raise CommandError(lines[-1] if lines else f"`{arguments[0]}` did not succeed")
    sys.stderr.write(said)  # which database it was, and the audit log where no file is set for it
    return json.loads(done.stdout)

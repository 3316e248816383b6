"""`mole completion`: the script that lets a shell complete the command."""

from __future__ import annotations

from enum import StrEnum

COMPLETE = "_MOLE_COMPLETE"
"""The variable by which a shell asks."""


class Shell(StrEnum):
    """The shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion_script(shell: Shell) -> str:
    """The script, to be sourced or put where the shell looks for it."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    return get_completion_script(prog_name="mole", complete_var=COMPLETE, shell=shell.value)

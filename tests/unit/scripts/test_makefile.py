"""The Makefile's targets and what they pass on."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TARGETS = (
    "setup",
    "demo",
    "test",
    "weights",
    "lint",
    "types",
    "check",
    "audit",
    "docs",
    "lock",
    "soak",
    "nightly",
    "clean",
)


def make(*arguments: str) -> str:
    # A make that runs the tests passes its own flags down.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], capture_output=True, text=True, cwd=ROOT, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_every_target():
    told = re.findall(r"^  make (\w+)", make("help"), re.MULTILINE)
    assert sorted(told) == sorted([*TARGETS, "help"])
    assert make() == make("help")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_calls_something(target: str):
    assert make("--dry-run", "--assume-new=requirements.lock", target)


@pytest.mark.parametrize(("once", "flag"), [("", False), ("ONCE=0", False), ("ONCE=1", True)])
def test_once_is_passed_on(once: str, flag: bool):
    assert ("--once" in make("--dry-run", "demo", *once.split())) is flag


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_setup_comes_first_where_it_is_needed(target: str, tmp_path: Path):
    wanted = make("--dry-run", target, f"VENV={tmp_path / 'none'}")
    assert wanted.index("scripts/setup") == 0

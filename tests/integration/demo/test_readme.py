"""Every command of the README runs, and every JSON answer in it is what the service answers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEFAULT_URL = "http://127.0.0.1:8000"
ENDLESS = ("demo", "serve")
"""Subcommands that run until they are stopped; other tests run them."""
CHANGING = {"request_id", "nearest_tasks"}
"""Members that differ from one request, or one training of gating, to the next."""
TOLERANCE = 0.15
"""Of a probability: kernels round differently from one processor to the next."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it begins at."""

    kind: str
    text: str
    line: int


def blocks(page: Path = ROOT / "README.md") -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = blocks()


def commands(block: Block) -> list[str]:
    joined = block.text.replace("\\\n", " ")
    lines = [re.sub(r"\s+#.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


COMMANDS = [
    pytest.param(command, next_block, id=f"line{block.line}-{number}")
    for block, next_block in zip(BLOCKS, [*BLOCKS[1:], None], strict=True)
    if block.kind == "sh"
    for number, command in enumerate(commands(block))
]


@pytest.mark.parametrize(("command", "answer"), COMMANDS)
def test_command(command: str, answer: Block | None, demo):
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[0] == "make":  # the targets themselves are run by CI and by the other tests
        run(["make", "--dry-run", *words[1:]])
    elif words[0] == ".venv/bin/mole":
        arguments = [*words[1:], "--help"] if words[1] in ENDLESS else words[1:]
        run([sys.executable, "-m", "mole.cli.main", *arguments], MOLE_URL=demo.url)
    elif words[0] == "curl":
        assert DEFAULT_URL in command
        printed = run([word.replace(DEFAULT_URL, demo.url) for word in words])
        if answer is not None and answer.kind == "json":
            assert differences(json.loads(answer.text), json.loads(printed)) == []
    else:
        pytest.fail(f"no test knows how to run {command!r}")


@pytest.mark.parametrize("block", [pytest.param(b, id=f"line{b.line}") for b in BLOCKS if b.kind == "python"])
def test_python(block: Block, demo):
    printed = run([sys.executable, "-c", block.text.replace(DEFAULT_URL, demo.url)])
    assert "None" not in printed  # what the README asks has an answer


def test_every_block_says_what_it_is():
    assert {block.kind for block in BLOCKS} <= {"sh", "json", "python", "text"}
    assert sum(block.kind == "json" for block in BLOCKS) >= 2
    assert any("make test" in commands(block) for block in BLOCKS if block.kind == "sh")


def test_every_link_leads_to_a_file():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def differences(told: Any, real: Any, where: str = "$") -> list[str]:
    """Where the README's answer and the real one differ in more than times, ids and rounding."""
    if where.rpartition(".")[2] in CHANGING:
        return []
    if isinstance(told, dict) and isinstance(real, dict):
        found = [f"{where}: keys {sorted(told)} and {sorted(real)}"] if told.keys() != real.keys() else []
        for key in told.keys() & real.keys():
            found += differences(told[key], real[key], f"{where}.{key}")
        return found
    if isinstance(told, list) and isinstance(real, list):
        found = [f"{where}: {len(told)} and {len(real)} items"] if len(told) != len(real) else []
        for index, pair in enumerate(zip(told, real, strict=False)):
            found += differences(*pair, f"{where}[{index}]")
        return found
    numbers = isinstance(told, int | float) and isinstance(real, int | float)
    if numbers and not isinstance(told, bool):
        is_time = "ms" in where.rpartition(".")[2] or "timings_ms" in where
        return [] if is_time or abs(told - real) <= TOLERANCE else [f"{where}: {told} and {real}"]
    return [] if told == real else [f"{where}: {told!r} and {real!r}"]

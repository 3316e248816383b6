"""One running demo for all tests of this folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "mole.cli.main", "demo")
PORTS = ("--port", "18310", "--worker-port", "18311")
START_TIMEOUT_S = 280


@dataclass(frozen=True)
class Demo:
    """A demo that serves: where, and what it printed."""

    url: str
    outcomes: list[dict[str, Any]]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    complaints = folder / "stderr"
    environment = {**os.environ, "MOLE_STATE_DIR": str(folder / "state")}
    with complaints.open("w") as errors:
        process = subprocess.Popen(
            [*COMMAND, *PORTS, "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    assert process.stdout is not None
    with process:
        try:
            from mole.demo.cases import CASES

            printed = [line for _case in CASES if (line := process.stdout.readline())]
            assert len(printed) == len(CASES), complaints.read_text()
            text = complaints.read_text()
            url = text.partition("a coordinator at ")[2].split()[0]
            yield Demo(url, [json.loads(line) for line in printed])
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(60) == 0, complaints.read_text()
            finally:
                process.terminate()  # where interrupts are ignored, as in a shell's background

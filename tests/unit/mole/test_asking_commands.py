"""Workers, tasks, bench, completion and help, as processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mole.cli.bench_command import Measured, percentile
from tests.unit.mole.test_client import WORKERS
from tests.unit.mole.test_command import mole

TASKS = {
    "tasks": [
        {
            "task_key": "a/b", "domain": "a", "description": "Good or bad?", "languages": None,
            "labels": ["good", "bad"], "experts": ["e"], "available": False,
        }
    ]
}  # fmt: skip
REFUSED = {**WORKERS, "mapping": {"loaded_at": "t", "refused": {"at": "noon", "error": "line 3: no"}}}


def test_workers_for_people_and_as_json(coordinator):
    coordinator.answers(REFUSED)
    told = mole("workers", "--url", coordinator.url).stdout
    assert "worker-0  healthy\n  gemma-3-270m at http://127.0.0.1:8001\n" in told
    assert "queue 0, p50 100 ms, p95 -" in told
    assert "last edit (noon) is refused: line 3: no" in told
    assert json.loads(mole("workers", "--json", MOLE_URL=coordinator.url).stdout)["workers"][0]["tasks"] == [
        "a/b"
    ]


def test_of_many_labels_the_first_are_printed(coordinator):
    labels = [f"label{i}" for i in range(77)]
    coordinator.answers({"tasks": [TASKS["tasks"][0] | {"labels": labels}]})
    told = mole("tasks", "--url", coordinator.url).stdout
    assert "label19 and 57 more" in told
    assert "label20" not in told
    assert "label76" in mole("tasks", "--json", "--url", coordinator.url).stdout


def test_tasks_for_people_and_as_json(coordinator):
    coordinator.answers(TASKS)
    told = mole("tasks", "--url", coordinator.url).stdout
    assert told == (
        "a/b  (no worker serves it)\n  Good or bad?\n  labels: good, bad\n  languages: every one\n"
    )
    assert json.loads(mole("tasks", "--json", MOLE_URL=coordinator.url).stdout)[0]["task_key"] == "a/b"


def test_bench_measures_and_counts_errors(coordinator):
    done = mole("bench", coordinator.url, "-n", "20", "-c", "4", "--warmup", "2", "--json")
    figures = json.loads(done.stdout)
    assert (figures["answered"], figures["errors"], figures["concurrency"]) == (20, {}, 4)
    latency = figures["latency_ms"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert len([asked for asked in coordinator.asked if asked[1].endswith("/classify")]) == 22
    coordinator.answers({"type": "t", "title": "Full", "status": 503, "detail": "x"}, 503)
    done = mole("bench", coordinator.url, "-n", "3")
    assert done.returncode == 1
    assert "errors      3 × 503" in done.stdout
    assert mole("bench", "http://127.0.0.1:9").returncode == 3


def test_percentiles_are_by_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (50, 90, 99, 100)] == [50.0, 90.0, 99.0, 100.0]
    assert percentile([], 50) is None
    assert percentile([3.0], 99) == 3.0
    assert Measured().as_dict()["latency_ms"]["p50"] is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str):
    assert "_MOLE_COMPLETE" in mole("completion", shell).stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_subcommands_and_options(tmp_path: Path):
    command = tmp_path / "mole"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mole.cli.main "$@"\n')
    command.chmod(0o755)
    script = """
        PATH="$1:$PATH"; eval "$(mole completion bash)"
        complete() { :; }
        COMP_WORDS=(mole classify); COMP_CWORD=1; _mole_completion mole; echo "${COMPREPLY[@]}"
        COMP_WORDS=(mole bench --con); COMP_CWORD=2; _mole_completion mole; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["classify", "classify-file", "--concurrency"], done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["classify"], ["classify-file"], ["bench"], ["workers"], ["tasks"], ["feedback"], ["jobs"],
        ["jobs", "submit"], ["serve"], ["train"], ["evaluate"], ["router"], ["keys"],
        ["serve", "worker"], ["config", "check"], ["models", "fetch"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_help_is_plain_and_fits_a_narrow_terminal(arguments: list[str]):
    done = mole(*arguments, "--help")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert "\x1b" not in done.stdout
    assert not set("╭│╰─") & set(done.stdout)
    assert "..." not in done.stdout.partition("\n")[2]  # no summary is cut
    if "COMMAND" not in done.stdout:
        assert "Examples:\n" in done.stdout

"""`mole demo` on the real models: what it asks, what it answers, and that it leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mole import Mole, MoleAPIError

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "mole.cli.main", "demo")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_ten_requests_in_six_languages_over_five_tasks_all_answered(demo):
    answered = [outcome["answer"] for outcome in demo.outcomes]
    assert all(answered), [outcome["error"] for outcome in demo.outcomes]
    assert len(answered) >= 10
    assert len({answer["language"] for answer in answered}) >= 6
    assert len({answer.get("task") for answer in answered if answer.get("result")}) >= 5


def test_the_route_is_told_with_the_time_of_each_step(demo):
    for outcome in demo.outcomes:
        answer = outcome["answer"]
        assert answer["routing_path"][0]["step"] == "language"
        assert answer["timings_ms"]["total"] > 0
        if answer.get("worker_id"):
            assert answer["routing_path"][-1]["step"] == "expert"
            assert answer["timings_ms"]["worker"] > 0


def test_labels_and_entities_are_those_of_the_task(demo):
    with Mole(demo.url) as mole:
        labels = {task.task_key: task.labels for task in mole.tasks()}
    for outcome in demo.outcomes:
        answer, text = outcome["answer"], outcome["request"]["text"]
        for entity in answer.get("entities") or []:
            assert text[entity["start"] : entity["end"]] == entity["value"]
        if answer.get("result") not in (None, "entities"):
            assert answer["result"] in labels[answer["task"]]


def test_it_keeps_serving_after_the_table(demo):
    with Mole(demo.url) as mole:
        assert mole.health().status == "ready"
        assert [worker.state for worker in mole.workers().workers] == ["healthy"]
        answer = mole.classify(
            "Je suis très content de cet achat.", task="social/sentiment_analysis", return_probabilities=True
        )
        assert answer.language == "fr"
        assert answer.probabilities is not None
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-3)
        with pytest.raises(MoleAPIError) as raised:
            mole.classify("x", task="no/task")
        assert raised.value.status == 400


@pytest.mark.slow
def test_once_prints_the_table_and_leaves_nothing_running(demo):
    # The wanted ports are taken by the other demo, so that this one has to find others.
    taken = demo.url.rpartition(":")[2]
    done = subprocess.run(
        [*COMMAND, "--once", "--port", taken], capture_output=True, text=True, cwd=ROOT, timeout=280
    )
    assert done.returncode == 0, done.stderr
    ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", done.stderr)]
    assert len(ports) == 2
    assert taken not in map(str, ports)
    assert not any(answers(port) for port in ports)
    assert "worker-0" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b[" not in done.stdout


def test_a_broken_start_is_one_line_and_stops_the_other_service(tmp_path: Path):
    cache = tmp_path / "file"
    cache.write_text("not a folder")
    done = subprocess.run(
        [*COMMAND, "--once", "--cache", str(cache)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_signal_in_the_middle_of_the_start_stops_everything(tmp_path: Path):
    process = subprocess.Popen(
        [*COMMAND, "--once", "--port", "18320", "--worker-port", "18321"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stderr is not None
    with process:
        first = process.stderr.readline()
        assert "starting a worker" in first
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    assert not answers(18320)
    assert not answers(18321)

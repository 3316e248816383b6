"""The demo's parts: its cases, files, table and child processes."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from rich.console import Console

from moe_router.contracts import ClassifyAnswer
from mole.cli.console import CommandError
from mole.demo.cases import CASES
from mole.demo.files import demo_files, mapping_for
from mole.demo.processes import Service, free_port, own_environment
from mole.demo.run import DemoOptions, _services
from mole.demo.table import Outcome, outcome_table, route_of


def test_at_least_ten_cases_with_distinct_texts():
    assert len({case.text for case in CASES}) == len(CASES) >= 10


def test_the_mapping_is_copied_only_for_another_port(tmp_path: Path):
    files = demo_files()
    worker_id, same = mapping_for(files, 8001, tmp_path)
    assert (worker_id, same) == ("worker-0", files.mapping)
    worker_id, other = mapping_for(files, 18301, tmp_path)
    assert other.parent == tmp_path
    assert json.loads(other.read_text())["workers"][worker_id]["url"] == "http://127.0.0.1:18301"


def test_a_taken_port_is_replaced_by_a_free_one():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert free_port(taken, set()) != taken
    assert free_port(taken, {taken}) != taken


def test_the_route_reads_from_left_to_right(answer):
    route = route_of(ClassifyAnswer.model_validate(answer))
    assert route == "de 0.99 → finance 0.97 → sentiment_analysis 0.95 → fin-sentiment on worker-0 0.91"


def test_a_route_without_a_task_says_so(abstained):
    steps = [("language", "tr", 0.99), ("domain", "none", 1.0), ("task", None, 0.0)]
    path = [{"step": step, "choice": choice, "probability": p, "ms": 0.1} for step, choice, p in steps]
    route = route_of(ClassifyAnswer.model_validate(abstained | {"routing_path": path}))
    assert route == "tr 0.99 → none 1.00 → no task"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_the_terminal(width: int, answer, abstained):
    outcomes = [
        Outcome(CASES[0], ClassifyAnswer.model_validate(answer)),
        Outcome(CASES[10], ClassifyAnswer.model_validate(abstained)),
        Outcome(CASES[1], None, "[no] worker"),
    ]
    stream = io.StringIO()
    Console(file=stream, width=width).print(outcome_table(outcomes, width))
    shown = stream.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= width
    for word in ("positive", "120.0", "131.5", "abstained", "failed"):
        assert word in shown


def test_the_demo_keeps_off_another_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = ("MOLE_API_KEY", "MOLE_WORKER_TOKEN", "MOLE_ENGINE_API_KEY")
    for name in ("DATABASE_URL", "database_url", "MOLE_REQUIRE_API_KEY", "MOLE_AUDIT_LOG", *secrets):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.delenv("MOLE_STATE_DIR", raising=False)
    monkeypatch.setenv("HF_CACHE_PATH", "kept")
    services = _services(DemoOptions(True, 18305, 18306, tmp_path, False), tmp_path)
    for service in services:
        service._command = [
            sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"
        ]  # fmt: skip
        service.start()
        assert service._process is not None
        service._process.wait(60)
        found = json.loads(service.log.read_text())
        assert "theirs" not in found.values()
        assert found["MOLE_STATE_DIR"] == str(tmp_path / "demo-state")
        assert found["HF_CACHE_PATH"] == "kept"
    assert own_environment({"MOLE_STATE_DIR": "state"}, tmp_path) == {"MOLE_STATE_DIR": "state"}


def test_a_service_that_ends_is_named_with_its_last_words(tmp_path: Path):
    service = Service("worker", 18302, ["--nonsense"], tmp_path / "log", os.environ)
    service.start()
    assert service._process is not None
    service._process.wait(60)
    with pytest.raises(CommandError, match="the worker ended with code 2"):
        service.check()
    service.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with a killed parent")
def test_a_killed_command_takes_its_services_along(tmp_path: Path):
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(f"""
            import os, sys, time
            from pathlib import Path
            from mole.demo.processes import Service
            service = Service("worker", 18303, [], Path({str(tmp_path / "log")!r}), os.environ)
            service._command = [sys.executable, "-c", "import time; time.sleep(60)"]
            service.start()
            print(service._process.pid, flush=True)
            time.sleep(60)
        """)],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        watcher = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
    import select

    ended, _, _ = select.select([watcher], [], [], 30)
    os.close(watcher)
    assert ended

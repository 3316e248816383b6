"""The `mole` command as its own process: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from mole.cli import main
from mole.cli.console import print_json

HEAVY = (
    "torch", "transformers", "onnxruntime", "fastapi", "numpy", "pandas", "pyarrow", "httpx", "pydantic",
    "rich",
)  # fmt: skip
"""None is needed before something is asked for; each costs tens of milliseconds."""


def mole(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "mole.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "60", **environment},
        timeout=60,
    )


def test_classify_prints_a_table_for_people(coordinator):
    done = mole("classify", "Der Umsatz stieg.", "-d", "Good?", "-p", "--url", coordinator.url)
    assert done.returncode == 0
    assert done.stderr == ""
    for shown in ("positive", "0.91", "finance/sentiment_analysis", "worker-0", "language: de", "131.5 ms"):
        assert shown in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert coordinator.asked[0][2]["options"] == {"return_probabilities": True}


def test_classify_json_is_the_answer_itself(coordinator):
    done = mole("classify", "-", "--json", "--field", "query=a=b", MOLE_URL=coordinator.url, stdin="Grüße 👋")
    assert json.loads(done.stdout)["result"] == "positive"
    assert coordinator.asked[0][2] == {"text": "Grüße 👋", "fields": {"query": "a=b"}}


def test_a_terminal_that_cannot_show_a_sign_is_shown_its_number(coordinator, answer):
    coordinator.answers({**answer, "result": "积极"})
    for options in ([], ["--json"]):
        done = mole(
            "classify", "x", *options, "--url", coordinator.url, PYTHONIOENCODING="iso-8859-1", PYTHONUTF8="0"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert r"\u79ef\u6781" in done.stdout


def test_an_abstention_says_why(coordinator, abstained):
    coordinator.answers(abstained)
    done = mole("classify", "x", "--url", coordinator.url)
    assert done.returncode == 0
    assert "abstained" in done.stdout
    assert "out_of_scope" in done.stdout
    assert "general/topic_classification" in done.stdout


def test_a_missing_service_is_one_line_and_exit_code_3():
    done = mole("classify", "x", "--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "mole demo" in done.stderr


def test_problem_details_are_one_line_and_exit_code_1(coordinator):
    coordinator.answers(
        {"type": "t", "title": "Unknown task", "status": 400, "detail": "There is no task 'a/b'."}, 400
    )
    done = mole("classify", "x", "--task", "a/b", "--url", coordinator.url)
    assert done.returncode == 1
    assert done.stderr == "mole: Unknown task (400): There is no task 'a/b'.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["classify"],
        ["nonsense"],
        ["serve", "worker", "--port", "99999"],
        ["classify", "x", "--field", "no-equals-sign"],
        ["feedback", "r-1"],
        ["feedback", "r-1", "--score", "2"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments):
    done = mole(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_an_address_without_a_scheme_is_wrong_usage():
    done = mole("tasks", "--url", "127.0.0.1:8000")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "http://" in done.stderr


def test_the_package_runs_as_a_module():
    run = [sys.executable, "-m", "mole"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "mole")
    wrong = subprocess.run([*run, "nonsense"], capture_output=True, text=True, check=False, timeout=60)
    assert (wrong.returncode, wrong.stderr.startswith("Usage: mole ")) == (2, True)


def test_sources_that_are_not_installed_tell_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(typer.Exit):
        main._version(True)
    assert capsys.readouterr().out.startswith("mole from its sources")


def test_feedback_is_sent_and_acknowledged(coordinator):
    coordinator.answers({"request_id": "r-1", "received_at": "2026-01-01T00:00:00Z", "replaced": False}, 202)
    given = ["feedback", "r-1", "--task", "a/b", "--label", "c", "--score", "0.5", "--url", coordinator.url]
    done = mole(*given)
    assert (done.returncode, done.stdout) == (0, "feedback on r-1 is stored\n")
    assert coordinator.asked[0][2] == {
        "request_id": "r-1", "correct_task": "a/b", "correct_label": "c", "score": 0.5,
    }  # fmt: skip
    assert json.loads(mole(*given, "--json").stdout)["replaced"] is False


def test_a_taken_port_is_named_before_anything_is_loaded(coordinator):
    port = coordinator.url.rpartition(":")[2]
    done = mole("serve", "coordinator", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "--port" in done.stderr
    assert done.stderr.count("\n") == 1
    done = mole("serve", "worker", WORKER_PORT=port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_a_missing_setting_or_file_is_named_before_anything_is_loaded(tmp_path: Path):
    done = mole("serve", "worker", "--port", "18304")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "WORKER_MODEL_KEY" in done.stderr
    gone = tmp_path / "gone.json"
    done = mole("serve", "monolithic", "--port", "18304", "--registry", str(gone))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{gone}" in done.stderr


def test_config_check_names_file_line_path_and_reason(tmp_path: Path):
    registry = tmp_path / "registry.json"
    registry.write_text('{\n "base_models": {},\n "tasks": {"a/b": {"base_model_key": "m"}}\n}')
    done = mole("config", "check", "--registry", str(registry), "--mapping", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert f"error {registry}:3: $.tasks['a/b'].base_model_key: names the undeclared" in done.stdout
    assert "no such file" in done.stdout
    as_json = mole("config", "check", "--registry", str(registry), "--mapping", "none.json", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["findings"][0]["line"] == 3


def test_doctor_tells_facts_and_verdicts(tmp_path: Path):
    done = mole("doctor", "--json", MOLE_CACHE_DIR=str(tmp_path / "not" / "there"))
    told = json.loads(done.stdout)
    assert set(told["can_run"]) == {"coordinator", "worker", "demo", "4-bit worker"}
    assert told["facts"]["models made"].startswith("none")
    assert done.returncode == (0 if told["can_run"]["demo"]["possible"] else 1)
    assert "cores" in mole("doctor").stdout


@pytest.mark.parametrize(
    "imported", ["import mole", "from mole import AsyncMole, Mole, Retry", "import mole.cli.main"]
)
def test_nothing_heavy_is_imported(imported):
    code = f"{imported}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_every_subcommand_has_help():
    for arguments in (
        ["demo"],
        ["classify"],
        ["feedback"],
        ["doctor"],
        ["serve", "coordinator"],
        ["serve", "worker"],
        ["serve", "monolithic"],
        ["models", "fetch"],
        ["config", "check"],
    ):
        done = mole(*arguments, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_stays_json_where_a_terminal_lacks_a_sign(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", terminal)
    print_json(json.dumps({"text": "é 😀"}, ensure_ascii=False))
    terminal.flush()
    assert json.loads(written.getvalue().decode(encoding)) == {"text": "é 😀"}

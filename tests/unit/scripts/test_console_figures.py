"""The console's plots show the benchmarks' figures, and say whose they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def run(action: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts/console_figures.py"), action]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def figures(root: Path = ROOT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "app/console/static/figures.json").read_text())
    return found


def test_the_shipped_figures_are_the_benchmarks() -> None:
    assert run("--check").returncode == 0
    measured = json.loads((ROOT / "benchmarks/results/gating-quality.json").read_text())
    assert figures()["reliability"]["ece"] == measured["ece"]
    for part in figures().values():
        assert (ROOT / part["source"]["file"]).is_file()
        assert part["source"]["command"]


def test_other_results_are_noticed_and_written(tmp_path: Path) -> None:
    for name in ("gating-quality.json", "cascade.json"):
        target = tmp_path / "benchmarks/results" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / "benchmarks/results" / name).read_bytes())
    (tmp_path / "scripts").mkdir()
    (tmp_path / "app/console/static").mkdir(parents=True)
    script = (ROOT / "scripts/console_figures.py").read_bytes()
    (tmp_path / "scripts/console_figures.py").write_bytes(script)
    assert run("--check", tmp_path).returncode == 1
    assert run("--write", tmp_path).returncode == 0
    assert run("--check", tmp_path).returncode == 0
    results = tmp_path / "benchmarks/results/gating-quality.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"ece": 0.5}))
    told = run("--check", tmp_path)
    assert told.returncode == 1
    assert "make docs" in told.stderr

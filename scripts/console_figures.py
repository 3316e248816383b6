"""Writes the figures of the console's plots from the benchmarks' results (`--write`), or checks them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("benchmarks/results")
GATING, CASCADE = RESULTS / "gating-quality.json", RESULTS / "cascade.json"
TARGET = Path("app/console/static/figures.json")
CURVES = ("cascade", "threshold", "always_probe", "always_llm")


def main() -> int:
    """1 where `--check` finds other figures than the benchmarks'."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = json.dumps(figures(_read(GATING), _read(CASCADE)), indent=1) + "\n"
    target = ROOT / TARGET
    if given.write:
        target.write_text(text, encoding="utf-8")
    elif not target.is_file() or target.read_text(encoding="utf-8") != text:
        print(f"{TARGET} is out of date: run make docs", file=sys.stderr)
        return 1
    return 0


def figures(gating: dict[str, Any], cascade: dict[str, Any]) -> dict[str, Any]:
    """What the plots show, each with the file and the command that it comes from."""
    of_gating = {"file": str(GATING), "command": "mole evaluate gating --data DIR", "note": None}
    versions = cascade["environment"]
    fewest, *_, most = sorted(task["texts"] for task in cascade["tasks"].values())
    return {
        "reliability": {"source": of_gating, "ece": gating["ece"], "bins": gating["reliability"]},
        "coverage_risk": {
            "source": of_gating,
            "points": gating["coverage_risk"],
            "abstention": gating["abstention"],
        },
        "cost_quality": {
            "source": {
                "file": str(CASCADE),
                "command": versions["command"],
                "note": f"{fewest:,} to {most:,} texts a task; the LLM is the demo's base model",
            },
            "tasks": [
                {"task": name, **{curve: task[curve] for curve in CURVES}}
                for name, task in cascade["tasks"].items()
            ],
        },
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())

"""A generated file: written again, or checked against what is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(wanted: dict[Path, str], doc: str | None) -> int:
    """Writes or checks files; the exit status."""
    parser = argparse.ArgumentParser(description=doc)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    stale = [path for path, text in wanted.items() if _differs(path, text)]
    if parser.parse_args().write:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        sys.stderr.write(f"{path.relative_to(ROOT)} is out of date; run `make docs`\n")
    return 1 if stale else 0


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text

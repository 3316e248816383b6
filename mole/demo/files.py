"""The demo's registry and mapping, and a copy of the mapping for another port."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mole.cli.console import CommandError

FOLDER = Path("config/demo")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the two files are."""

    registry: Path
    mapping: Path


def demo_files() -> DemoFiles:
    """Finds config/demo here or in the checkout that the command was installed from.

    Raises:
        CommandError: it is in neither.
    """
    for root in (Path.cwd(), PROJECT_ROOT):
        files = DemoFiles(
            root / FOLDER / "experts_registry.json", root / FOLDER / "expert_machine_mapping.json"
        )
        if files.registry.is_file() and files.mapping.is_file():
            return files
    raise CommandError(f"there is no {FOLDER} here; run the command in a checkout of the project")


def mapping_for(files: DemoFiles, worker_port: int, folder: Path) -> tuple[str, Path]:
    """Id of the demo's worker, and a mapping that names it at the port.

    Args:
        files: The demo's files.
        worker_port: Where the worker will listen on 127.0.0.1.
        folder: Where a changed copy may be written.
    """
    mapping = json.loads(files.mapping.read_text(encoding="utf-8"))
    worker_id = next(name for name in mapping["workers"] if not name.startswith("_"))
    url = f"http://127.0.0.1:{worker_port}"
    if mapping["workers"][worker_id]["url"] == url:
        return worker_id, files.mapping
    mapping["workers"][worker_id]["url"] = url
    copy = folder / files.mapping.name
    copy.write_text(json.dumps(mapping, indent=2), encoding="utf-8")
    return worker_id, copy

"""`python -m app.learning`: trains and keeps the router's versions; prints JSON.

The `mole` command starts it as a process of its own: it needs the coordinator's settings and
database, which the command itself never loads. Settings are those of the coordinator's environment.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.learning.training import PER_CALLER, TrainRun, train
from app.services import audit, storage_command
from moe_router.gating.versions import learned_beside, shipped_digest

if TYPE_CHECKING:
    from app.settings import Settings
    from app.storage.storage import Storage


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 1 with one line on standard error."""
    given = _parser().parse_args(arguments)
    return storage_command.run(lambda settings, storage: _command(given, settings, storage))


async def _command(given: argparse.Namespace, settings: Settings, storage: Storage) -> Any:
    versions = storage.router_versions
    if given.command == "train":
        run = TrainRun(
            given.data, given.per_caller, dry_run=given.dry_run, promote=not given.no_promote
        )  # fmt: skip
        return await train(storage, settings, run, _report)
    if given.command == "versions":
        shipped = shipped_digest(settings.gating_model_dir)
        return [
            asdict(version) | {"meta": None, "outdated": not learned_beside(version.meta, shipped)}
            for version in await versions.list()
        ]
    if given.command == "promote":
        live = await versions.promote(given.id, at=time.time())
        audit.record("router.promoted", actor=audit.command_actor(), version=live.id)
        return asdict(live) | {"meta": None}
    back = await versions.rollback()
    now_live = None if back is None else back.id
    audit.record("router.rolled_back", actor=audit.command_actor(), live_version=now_live)
    return {"id": None} if back is None else asdict(back) | {"meta": None}


def _report(message: str, done: float) -> None:
    if sys.stderr.isatty():
        print(f"{message}: {done:.0%}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.learning", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--data", type=Path)
    training.add_argument("--per-caller", type=int, default=PER_CALLER)
    training.add_argument("--dry-run", action="store_true")
    training.add_argument("--no-promote", action="store_true")
    commands.add_parser("versions")
    commands.add_parser("promote").add_argument("id", type=int)
    commands.add_parser("rollback")
    return parser


if __name__ == "__main__":
    sys.exit(main())

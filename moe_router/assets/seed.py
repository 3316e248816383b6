"""Puts an image's shipped files into a volume: on the first start, and again when the image is newer.

A file in the volume is the image's while it has the digest that an image gave it; the manifest
`.mole-shipped.json` in the volume remembers those. Only the image's own files are ever replaced. Files
that fit only each other make a unit: where the operator changed one of them, all stay as they are.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

MANIFEST = ".mole-shipped.json"
LOCK = ".mole-shipped.lock"
PARTIAL = ".mole-partial"
Digests = dict[str, str]
"""SHA-256 by path relative to the folder, with forward slashes."""


@dataclass(slots=True)
class Report:
    """What one seeding did, by relative path."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """changed by the operator, or of a unit in which another file is"""


def seed(shipped: Path, target: Path, *, together: bool = False) -> Report:
    """Brings the target up to what is shipped; what the operator added or changed stays.

    Args:
        shipped: the image's folder.
        target: the volume's; made where it is missing.
        together: all files are one unit; otherwise each folder is one.

    Raises:
        OSError: the target cannot be read or written.
    """
    report = Report()
    new = _digests(shipped)
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target / LOCK):
        given = _read_manifest(target / MANIFEST)
        for unit in _units(new, together):
            _seed_unit(shipped, target, {path: new[path] for path in unit}, given, report)
        _write(target / MANIFEST, json.dumps(given, indent=1, sort_keys=True).encode())
    return report


def _seed_unit(shipped: Path, target: Path, new: Digests, given: Digests, report: Report) -> None:
    """Seeds one unit; `given` is brought up to date."""
    present = {path: _digest(target / path) for path in new if (target / path).is_file()}
    changed = {path for path, digest in present.items() if digest not in (new[path], given.get(path))}
    for path, digest in new.items():
        if path in changed:
            report.kept.append(path)
        elif present.get(path) == digest:
            given[path] = digest
        elif changed and given.get(path) != digest:  # a newer file need not fit the operator's
            report.kept.append(path)
        else:
            (report.replaced if path in present else report.added).append(path)
            _copy(shipped / path, target / path)
            given[path] = digest


def _units(paths: Digests, together: bool) -> list[list[str]]:
    units: dict[str, list[str]] = {}
    for path in sorted(paths):
        units.setdefault("" if together else str(PurePosixPath(path).parent), []).append(path)
    return list(units.values())


def _digests(folder: Path) -> Digests:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    """In one step: a service that reads the target sees the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    shutil.copyfile(source, partial)
    os.replace(partial, target)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + PARTIAL)
    partial.write_bytes(data)
    os.replace(partial, path)


def _read_manifest(path: Path) -> Digests:
    """Empty where there is none, or none that is understood: what differs is then the operator's."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        logger.warning("%s is no JSON; files that differ from the image's are taken for yours", path)
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # Two containers of one volume may start at once.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Seeds one folder; a target that cannot be written is told, and the service starts all the same."""
    parser = argparse.ArgumentParser(prog="seed", description="Puts shipped files into a volume.")
    parser.add_argument("shipped", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--together", action="store_true", help="the files fit only each other")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="seed: %(message)s", stream=sys.stderr)
    try:
        report = seed(given.shipped, given.target, together=given.together)
    except OSError as error:
        logger.error(
            "%s cannot be filled by user %d: %s; it must belong to that user (see docs/deploy.md)",
            given.target,
            os.getuid(),
            error,
        )
        return 0
    if report.added or report.replaced:
        logger.info("%s: %d files added, %d renewed", given.target, len(report.added), len(report.replaced))
    if report.kept:
        logger.warning(
            "%s: left as they are, since they were changed here: %s; the image's are in %s",
            given.target,
            ", ".join(report.kept[:10]) + (" and more" if len(report.kept) > 10 else ""),
            given.shipped,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

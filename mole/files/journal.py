"""How far a run is, so that the next one goes on from there.

Rows are written into PART, the output's name with `.part` at its end, and beside it a journal says how
many rows and bytes of it are certain. After a crash PART is cut back to that, so that a row is neither
lost nor doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from mole.files.formats import FileError

VERSION = 3


@dataclass(frozen=True, slots=True)
class Certain:
    """What is on the disk for good."""

    settings: str
    """digest of what shapes the output"""
    rows: int = 0
    bytes: int = 0
    failed: int = 0
    error_bytes: int = 0
    input: str = ""
    """digest of the rows read so far"""
    errors: str | None = None
    """where the errors are"""
    replaces: bool = False
    """whether an output of before is to be written over"""


class Journal:
    """The part of an output that is written, and the errors beside it."""

    def __init__(self, output: Path, errors: Path | None, settings: str) -> None:
        self.output = output
        self.part = output.with_name(output.name + ".part")
        self._file = output.with_name(output.name + ".part.json")
        self._errors = errors
        told = str(errors.resolve()) if errors is not None else None
        self.certain = Certain(settings, errors=told, replaces=output.exists())

    def check_free(self, restart: bool) -> None:
        """Keeps an output that is there, unless it is to be written over, as by a run that this one goes on.

        Raises:
            FileError: it is there, or the journal cannot be read.
        """
        if restart or not self.output.exists():
            return
        found = self._read()
        if found is None or not found.replaces:
            raise FileError(f"{self.output} is there already; choose another name, or --restart")

    def open(self, restart: bool) -> tuple[IO[bytes], IO[bytes] | None]:
        """Opens both files at the end of what is certain.

        Raises:
            FileError: another run is writing, or what is there is of a run with other settings, or
                of no run that this one goes on with.
        """
        found = None if restart else self._read()
        if self._errors is not None and found is None and not restart:
            check_empty(self._errors)
        with ExitStack() as opened:
            part = opened.enter_context(self.part.open("ab"))
            _lock(part, self.output)
            if found is not None and found.settings != self.certain.settings:
                raise FileError(f"{self.part} is of a run with other options: use the same, or --restart")
            if found is not None and found.errors != self.certain.errors:
                before = f"with --errors {found.errors}" if found.errors else "without --errors"
                raise FileError(f"{self.part} is of a run {before}: do the same, or --restart")
            self.certain = found or self.certain
            _cut(part, self.certain.bytes, self.part)
            errors = None
            if self._errors is not None:
                errors = opened.enter_context(self._errors.open("ab"))
                _cut(errors, self.certain.error_bytes, self._errors)
            self.keep(part, errors, self.certain)  # from now on the errors are known to be of this run
            opened.pop_all()
        return part, errors

    def keep(self, part: IO[bytes], errors: IO[bytes] | None, certain: Certain) -> None:
        """Makes certain what is written so far, and cuts off what is beyond it."""
        for file, size in ((part, certain.bytes), (errors, certain.error_bytes)):
            if file is not None:
                file.truncate(size)  # which flushes
                os.fsync(file.fileno())
        self.certain = certain
        fresh = self._file.with_name(self._file.name + ".new")
        fresh.write_text(json.dumps({"version": VERSION, **asdict(self.certain)}), encoding="utf-8")
        fresh.replace(self._file)

    def forget(self) -> None:
        """Removes what was needed to go on; the output is whole."""
        self.part.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)

    def _read(self) -> Certain | None:
        try:
            said = json.loads(self._file.read_text(encoding="utf-8"))
            if said["version"] != VERSION:
                raise FileError(f"{self._file} is of another version of mole; --restart begins anew")
            return Certain(**{name: said[name] for name in asdict(self.certain)})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{self._file} is damaged; --restart begins anew") from error


def check_empty(errors: Path) -> None:
    """Keeps what somebody else has written.

    Raises:
        FileError: the file for the errors holds something.
    """
    if errors.exists() and errors.stat().st_size:
        raise FileError(f"{errors} is there already; choose another name for --errors, or --restart")


def digest(*parts: object) -> str:
    """A short name for values."""
    return hashlib.sha256(
        json.dumps(parts, default=str, ensure_ascii=False).encode("utf-8", "replace")
    ).hexdigest()


def _cut(file: IO[bytes], size: int, path: Path) -> None:
    if os.fstat(file.fileno()).st_size < size:
        raise FileError(f"{path} is shorter than it was; --restart begins anew")
    file.truncate(size)
    file.seek(size)


def _lock(file: IO[bytes], output: Path) -> None:
    """Keeps a second run off the file until it is closed; systems without flock go without."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise FileError(f"another run is writing {output}") from error

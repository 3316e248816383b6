"""Where rows go: standard output, a file that can be gone on with, or Parquet made of such a file."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from mole.files.formats import STANDARD, FileError, Format, Row, Source, TextWriter, columns_of
from mole.files.journal import Journal, check_empty, digest
from mole.files.parquet import schema_of, write_parquet

KEEP_EVERY_S = 1.0
KEEP_EVERY_ROWS = 256
"""Whichever comes first: what a crash costs is at most so much of asking again."""


class Sink(Protocol):
    """Takes rows in order."""

    @property
    def rows(self) -> int:
        """Written so far, by earlier runs too."""

    @property
    def failed(self) -> int:
        """How many of them failed."""

    def skip(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Passes over the rows that earlier runs have written; the others are noted as they pass."""

    def write(self, row: Row, added: Row, error: Row | None) -> None:
        """Writes the caller's row with the columns added to it."""

    def head(self, columns: Sequence[str], added: Sequence[str]) -> None:
        """Writes the columns alone, where there is no row."""

    def keep(self) -> None:
        """Makes certain what is written so far."""

    def close(self, finished: bool) -> None:
        """Ends; where all rows are written the output takes its name."""


class StandardSink:
    """Writes to standard output; there is nothing to go on with."""

    def __init__(
        self, kind: Format, delimiter: str | None, errors: Path | None, *, restart: bool = False
    ) -> None:
        if kind is Format.PARQUET:
            raise FileError("Parquet cannot be written to standard output")
        if errors is not None and not restart:
            check_empty(errors)
        self.rows = self.failed = 0
        self._kind, self._delimiter = kind, delimiter
        self._writer: TextWriter | None = None
        self._errors = errors.open("wb") if errors is not None else None

    def skip(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Nothing to pass over."""
        return rows

    def write(self, row: Row, added: Row, error: Row | None) -> None:
        """Writes at once."""
        whole = {**row, **added}
        writer = self._writer or self._begin(list(whole))
        sys.stdout.buffer.write(writer.row(whole))
        self.rows += 1
        self.failed += error is not None
        if error is not None and self._errors is not None:
            self._errors.write(_line(error))

    def head(self, columns: Sequence[str], added: Sequence[str]) -> None:
        """Writes them at once."""
        self._begin([*columns, *added])

    def _begin(self, columns: list[str]) -> TextWriter:
        self._writer = TextWriter(self._kind, columns, self._delimiter)
        sys.stdout.buffer.write(self._writer.head())
        return self._writer

    def keep(self) -> None:
        """Lets whoever reads have it."""
        sys.stdout.buffer.flush()

    def close(self, finished: bool) -> None:
        """Ends."""
        self.keep()
        if self._errors is not None:
            self._errors.close()


class FileSink:
    """Writes into OUT.part and keeps a journal, seldom behind by more than a second."""

    def __init__(
        self,
        path: str,
        kind: Format,
        delimiter: str | None,
        errors: Path | None,
        settings: object,
        *,
        restart: bool = False,
        source: Source | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._kind, self._delimiter = Path(path), kind, delimiter
        self._source = source
        if kind is Format.PARQUET and (source is None or source.is_standard):
            raise FileError("Parquet cannot be written from standard input, which can be read only once")
        self._journal = Journal(self._path, errors, digest(settings))
        self._journal.check_free(restart)
        # Before anything is asked: rows that do not fit Parquet would be asked for in vain.
        self._schema = schema_of(source) if source is not None and kind is Format.PARQUET else None
        self._columns = _all_columns(source, kind)
        self._part, self._errors = self._journal.open(restart)
        self._state = (self._journal.certain, hashlib.sha256())
        self._writer: TextWriter | None = None
        self._added: Sequence[str] = ()
        self._clock = clock
        self._kept_at = clock()

    @property
    def rows(self) -> int:
        """Written so far, by earlier runs too."""
        return self._state[0].rows

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self._state[0].failed

    def skip(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Passes over what is written.

        Raises:
            FileError: the input is not the one that the earlier run read.
        """
        certain, seen = self._state
        for row in islice(rows, certain.rows):
            seen.update(_line(row))
        if certain.rows and seen.hexdigest() != certain.input:
            raise FileError("the input has changed since the earlier run; --restart begins anew")
        return rows

    def write(self, row: Row, added: Row, error: Row | None) -> None:
        """Writes a row, and an error beside it."""
        whole = added if self._kind is Format.PARQUET else {**row, **added}
        writer = self._writer or self._begin([*dict.fromkeys([*self._columns, *whole])])
        line = writer.row(whole)
        certain, seen = self._state
        seen = seen.copy()
        seen.update(_line(row))
        self._part.write(line)
        if error is not None and self._errors is not None:
            self._errors.write(_line(error))
        # At once: what an interrupt before it leaves in the files is cut off again.
        self._state = (
            replace(
                certain,
                rows=certain.rows + 1,
                bytes=self._part.tell(),
                failed=certain.failed + (error is not None),
                error_bytes=self._errors.tell() if self._errors is not None else 0,
                input=seen.hexdigest(),
            ),
            seen,
        )
        behind = self.rows - self._journal.certain.rows
        if behind >= KEEP_EVERY_ROWS or self._clock() - self._kept_at >= KEEP_EVERY_S:
            self.keep()

    def head(self, columns: Sequence[str], added: Sequence[str]) -> None:
        """Writes them; Parquet has them at the end."""
        self._added = added
        self._begin([*columns, *added])
        certain, seen = self._state
        self._state = (replace(certain, bytes=self._part.tell()), seen)

    def _begin(self, columns: list[str]) -> TextWriter:
        """The columns are those of the first row of all, which an earlier run may have written."""
        kind = Format.JSONL if self._kind is Format.PARQUET else self._kind
        if self._part.tell():
            columns = columns_of(self._journal.part, kind, self._delimiter)
            self._writer = TextWriter(kind, columns, self._delimiter)
        else:
            self._writer = TextWriter(kind, columns, self._delimiter)
            self._part.write(self._writer.head())
        return self._writer

    def keep(self) -> None:
        """Makes certain what is written so far."""
        self._journal.keep(self._part, self._errors, self._state[0])
        self._kept_at = self._clock()

    def close(self, finished: bool) -> None:
        """Ends; the output takes its name in one step, so that it is there whole or not at all."""
        try:
            self.keep()
            if not finished and not self.rows:
                self._journal.forget()
            if finished:
                if self._kind is Format.PARQUET:
                    self._to_parquet()
                else:
                    self._journal.part.replace(self._path)
                self._journal.forget()
        finally:
            self._part.close()
            if self._errors is not None:
                self._errors.close()

    def _to_parquet(self) -> None:
        """Joins the input's rows with the columns in the part file."""
        assert self._source is not None  # noqa: S101 - checked at the start
        fresh = self._path.with_name(self._path.name + ".new")
        with self._journal.part.open(encoding="utf-8") as added:
            rows = (json.loads(line) for line in added)
            write_parquet(fresh, self._source, self._schema, rows, self._added)
        fresh.replace(self._path)


def open_sink(
    path: str,
    kind: Format,
    delimiter: str | None,
    errors: Path | None,
    settings: object,
    *,
    restart: bool,
    source: Source,
) -> Sink:
    """The sink for a path; `-` is standard output."""
    if path == STANDARD:
        return StandardSink(kind, delimiter, errors, restart=restart)
    return FileSink(path, kind, delimiter, errors, settings, restart=restart, source=source)


def _all_columns(source: Source | None, kind: Format) -> list[str]:
    """Those of a table that is made of JSON Lines, of which any may have more than the first."""
    if source is None or source.is_standard or source.format is not Format.JSONL or kind is Format.JSONL:
        return []
    return [*dict.fromkeys(name for row in source.rows() for name in row)]


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"

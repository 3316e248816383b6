"""CSV, JSON Lines and Parquet: rows out of a file, and rows as the bytes of a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat
from pathlib import Path
from typing import IO, Any

Row = dict[str, Any]
LONGEST_CELL = 16 * 2**20
"""Characters of one cell of a CSV file."""
STANDARD = "-"
END = "\r\n"
"""The ends of lines that a cell of CSV is quoted for."""


class FileError(Exception):
    """A file that cannot be read or written as it is; the message names the row and the mend."""


class Format(StrEnum):
    """What a file's rows are written in."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"


SUFFIXES = {
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".tab": Format.TSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from."""

    path: str
    """`-` is standard input"""
    format: Format
    delimiter: str | None = None
    encoding: str = "utf-8"
    columns: list[str] = field(default_factory=list, init=False, compare=False)
    """those that it has without a row, too, once the first was asked for; JSON Lines have none"""

    @property
    def is_standard(self) -> bool:
        """Whether it can be read only once."""
        return self.path == STANDARD

    def rows(self) -> Iterator[Row]:
        """The rows, one at a time.

        Raises:
            FileError: a row cannot be read; those before it were yielded.
        """
        read: Callable[[Source], Iterator[Row]] = {
            Format.CSV: _csv_rows,
            Format.TSV: _csv_rows,
            Format.JSONL: _json_rows,
            Format.PARQUET: _parquet_rows,
        }[self.format]
        try:
            yield from read(self)
        except UnicodeDecodeError as error:
            raise FileError(f"{self.path} is not {self.encoding}; name its --encoding") from error

    def count(self) -> int | None:
        """How many rows there are; None where only reading would tell."""
        if self.is_standard:
            return None
        if self.format is Format.PARQUET:
            return int(_parquet().ParquetFile(self.path).metadata.num_rows)
        return sum(1 for _ in self.rows())


def format_of(path: str, stated: Format | None, like: Format | None = None) -> Format:
    """The format that is stated, or that the file's name tells, or the other file's.

    Raises:
        FileError: nothing tells.
    """
    found = stated or SUFFIXES.get(Path(path).suffix.lower()) or (like if path == STANDARD else None)
    if found is None:
        raise FileError(
            f"the name {path!r} tells no format; use .csv, .tsv, .jsonl or .parquet, "
            "or state it with --input-format or --output-format"
        )
    return found


@dataclass(frozen=True, slots=True)
class TextWriter:
    """Rows as the bytes of a CSV, TSV or JSON Lines file; a row is one piece, with its end."""

    format: Format
    columns: Sequence[str]
    delimiter: str | None = None

    def head(self) -> bytes:
        """What stands before the first row."""
        return b"" if self.format is Format.JSONL else self._cells(self.columns)

    def row(self, row: Row) -> bytes:
        """One row.

        Raises:
            FileError: it has a column that the first row has not.
        """
        if self.format is Format.JSONL:
            return (
                json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n"
            )
        more = row.keys() - set(self.columns)
        if more:
            raise FileError(f"the column {min(more)!r} is not in the first row; write JSON Lines instead")
        return self._cells([_cell(row.get(name)) for name in self.columns])

    def _cells(self, cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        # Only what the line's end holds is quoted in a cell: a lone CR parts rows for readers, too.
        parted = _delimiter(self.format, self.delimiter)
        csv.writer(text, delimiter=parted, lineterminator=END).writerow(cells)
        return f"{text.getvalue().removesuffix(END)}\n".encode("utf-8", "backslashreplace")


def columns_of(path: Path, kind: Format, delimiter: str | None) -> list[str]:
    """Those of a file that a TextWriter began."""
    if kind is Format.JSONL:
        return []
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file, delimiter=_delimiter(kind, delimiter), strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):  # out of Parquet they may hold times and decimals
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _delimiter(kind: Format, stated: str | None) -> str:
    return stated or ("\t" if kind is Format.TSV else ",")


def _open(source: Source) -> IO[str]:
    encoding = "utf-8-sig" if source.encoding.lower() in ("utf-8", "utf8") else source.encoding
    if source.is_standard:
        return io.TextIOWrapper(sys.stdin.buffer, encoding=encoding, newline="")
    return Path(source.path).open(encoding=encoding, newline="")


def _take_columns(source: Source, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise FileError(
            f"{source.path}: two columns are named {twice[0]!r}; cells of the same name cannot be told apart"
        )
    source.columns[:] = names


def _csv_rows(source: Source) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    with _open(source) as file:
        reader = csv.reader(file, delimiter=_delimiter(source.format, source.delimiter), strict=True)
        try:
            columns = next(reader, None)
            if columns is None:
                return
            _take_columns(source, columns)
            for cells in _with_blanks(reader, len(columns)):
                if len(cells) != len(columns):
                    counts = f"{_cells(len(cells))}, but the header has {len(columns)}"
                    raise FileError(f"{source.path}:{reader.line_num}: {counts}")
                yield dict(zip(columns, cells, strict=True))
        except csv.Error as error:
            raise FileError(f"{source.path}:{reader.line_num}: {error}") from error


def _with_blanks(lines: Iterable[list[str]], columns: int) -> Iterator[list[str]]:
    """The lines that are rows: a blank one is where there is one column, unless only such ones follow."""
    blanks = 0
    for cells in lines:
        if not cells:
            blanks += columns == 1
            continue
        yield from repeat([""], blanks)
        blanks = 0
        yield cells


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _json_rows(source: Source) -> Iterator[Row]:
    with _open(source) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FileError(f"{source.path}:{number}: is no JSON") from error
            if not isinstance(row, dict):
                raise FileError(f"{source.path}:{number}: is no JSON object")
            yield row


def _parquet_rows(source: Source) -> Iterator[Row]:
    if source.is_standard:
        raise FileError("Parquet cannot be read from standard input")
    file = _parquet().ParquetFile(source.path)
    _take_columns(source, file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=1024):
        try:
            rows = batch.to_pylist()
        except (OverflowError, ValueError) as error:  # a date after 9999, which Python does not have
            raise FileError(f"{source.path}: a value cannot be read: {error}") from error
        yield from rows


def _parquet() -> Any:
    import pyarrow.parquet

    return pyarrow.parquet

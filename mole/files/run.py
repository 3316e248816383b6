"""Classifies the rows of a file: read ahead, asked in batches, written in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mole.files.formats import FileError, Row
from mole.files.progress import Progress
from mole.files.sinks import Sink
from mole.rows import COLUMNS, to_columns

if TYPE_CHECKING:
    from mole.client import Mole
    from mole.results import ItemResult

NO_TEXT = "The row has no text."
OTHER_DELIMITERS = (";", "|", "\\t")
"""as `repr` shows them"""


class RowFailedError(Exception):
    """A row failed, and the run was to end with it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do with the rows."""

    text_column: str = "text"
    description: str | None = None
    description_column: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = "mole_"
    concurrency: int = 64
    batch_size: int = 16
    fail_fast: bool = False


def classify_rows(rows: Iterator[Row], sink: Sink, client: Mole, wanted: Wanted, progress: Progress) -> None:
    """Classifies what the sink has not written yet; the sink is kept up to the last row written.

    Raises:
        FileError: the input cannot be read or lacks a column.
        RowFailedError: a row failed, with `fail_fast`.
        MoleAPIError, MoleConnectionError: the service refuses, or cannot be reached.
    """
    waiting: deque[Row] = deque()
    writer = _Writer(sink, wanted, progress)

    def items() -> Iterator[Mapping[str, Any]]:
        for row in sink.skip(rows):
            waiting.append(row)
            item = _item(row, wanted)
            if item is not None:
                yield item

    answers = client.classify_many(
        items(),
        wanted.description,
        concurrency=wanted.concurrency,
        batch_size=wanted.batch_size,
        **wanted.options,
    )
    for result in answers:
        writer.write_textless(waiting)
        writer.write(waiting.popleft(), result)
    writer.write_textless(waiting)


class _Writer:
    def __init__(self, sink: Sink, wanted: Wanted, progress: Progress) -> None:
        self._sink, self._wanted, self._progress = sink, wanted, progress

    def write_textless(self, waiting: deque[Row]) -> None:
        """Writes the rows at the head that were not asked for, as they have no text."""
        while waiting and _item(waiting[0], self._wanted) is None:
            problem = {"type": "about:blank", "title": "No text", "status": 400, "detail": NO_TEXT}
            self._put(waiting.popleft(), dict.fromkeys(COLUMNS) | {"error": NO_TEXT}, problem)

    def write(self, row: Row, result: ItemResult) -> None:
        problem = result.error.model_dump(exclude_none=True) if result.error is not None else None
        self._put(row, to_columns(result), problem)

    def _put(self, row: Row, columns: Row, problem: Row | None) -> None:
        number = self._sink.rows + 1
        if problem is not None and self._wanted.fail_fast:
            raise RowFailedError(f"row {number}: {columns['error']}")
        added = {self._wanted.prefix + name: value for name, value in columns.items()}
        if not added.keys().isdisjoint(row):
            taken = next(name for name in added if name in row)
            raise FileError(f"the input has a column {taken!r} of its own; choose another --prefix")
        self._sink.write(row, added, None if problem is None else {"row": number, "error": problem})
        self._progress.advance(problem is not None, columns["abstained"] is not None)


def _item(row: Row, wanted: Wanted) -> dict[str, Any] | None:
    """The request for a row; None where it has no text."""
    try:
        text = row[wanted.text_column]
        description = None if wanted.description_column is None else row[wanted.description_column]
    except KeyError as error:
        raise FileError(_no_column(error.args[0], row)) from error
    if text is None or not str(text).strip():
        return None
    return {"text": str(text), "description": str(description) if description else None}


def _no_column(missing: str, row: Row) -> str:
    found = ", ".join(map(repr, row))
    if len(row) == 1 and any(sign in found for sign in OTHER_DELIMITERS):
        return f"there is no column {missing!r}, only {found}; say by --delimiter what parts the cells"
    mend = "Name it with --text-column or --description-column"
    return f"there is no column {missing!r}; there are {found}. {mend}"

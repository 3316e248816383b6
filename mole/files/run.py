"""Classifies the rows of a file: read ahead, asked in batches, written in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from mole.batches import size_of
from mole.files.formats import FileError, Row, Source
from mole.files.progress import Progress
from mole.files.sinks import Sink
from mole.rows import COLUMNS, as_text, to_columns

if TYPE_CHECKING:
    from mole.client import Mole
    from mole.results import ItemResult

NO_TEXT = "The row has no text."
OTHER_DELIMITERS = (";", "|", "\\t")
"""as `repr` shows them"""
OF_THE_SERVICE = frozenset({429, 503})
"""What no text brings about: a limit, no worker; 502 and 504 may be due to a text."""
UNSERVED_REQUESTS = 3
"""So many in a row and the service is away; fewer may be of one task, whose worker alone is down."""


class RowFailedError(Exception):
    """A row failed, and the run was to end with it."""


class UnservedError(Exception):
    """The service is there, but serves nothing for the moment; no row is to blame."""


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


def classify_rows(source: Source, sink: Sink, client: Mole, wanted: Wanted, progress: Progress) -> None:
    """Classifies what the sink has not written yet; the sink is kept up to the last row written.

    Raises:
        FileError: the input cannot be read or lacks a column.
        RowFailedError: a row failed, with `fail_fast`.
        UnservedError: nothing of several requests in a row was served; none of their rows is written.
        MoleAPIError, MoleConnectionError: the service refuses, or cannot be reached.
    """
    waiting: deque[Row] = deque()
    writer = _Writer(sink, wanted, progress)

    def items() -> Iterator[Mapping[str, Any]]:
        is_first = not sink.rows
        for row in sink.skip(source.rows()):
            if is_first:
                _check_has(row, wanted)
                is_first = False
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
    size = size_of(wanted.batch_size, wanted.concurrency)
    most = 1 if wanted.fail_fast else UNSERVED_REQUESTS
    unserved: list[list[ItemResult]] = []
    served = False
    while results := list(islice(answers, size)):  # those of one request
        if _is_unserved(results):
            unserved.append(results)
            if len(unserved) == most:
                raise _unserved(unserved)
        else:
            writer.write(waiting, [*unserved, results])
            unserved, served = [], True
    if unserved and not served:
        raise _unserved(unserved)
    writer.write(waiting, unserved)
    writer.write_textless(waiting)
    if not sink.rows:
        writer.write_head(source.columns)


def _is_unserved(results: Iterable[ItemResult]) -> bool:
    return all(result.error is not None and result.error.status in OF_THE_SERVICE for result in results)


def _unserved(requests: Sequence[Sequence[ItemResult]]) -> UnservedError:
    """A worker that is started anew is away for minutes, longer than one tries again."""
    what = f"{len(requests)} requests in a row" if len(requests) > 1 else "a request"
    last = requests[-1][-1].error
    why = "" if last is None else f": {last.title} ({last.status}): {last.detail}"
    return UnservedError(f"nothing of {what} was served{why}")


class _Writer:
    def __init__(self, sink: Sink, wanted: Wanted, progress: Progress) -> None:
        self._sink, self._wanted, self._progress = sink, wanted, progress

    def write_head(self, columns: Sequence[str]) -> None:
        """Without a row the columns are written, and looked at, all the same."""
        if columns:
            _check_has(columns, self._wanted)
        added = [self._wanted.prefix + name for name in COLUMNS]
        _check_free(added, columns)
        self._sink.head(columns, added)

    def write_textless(self, waiting: deque[Row]) -> None:
        """Writes the rows at the head that were not asked for, as they have no text."""
        while waiting and _item(waiting[0], self._wanted) is None:
            problem = {"type": "about:blank", "title": "No text", "status": 400, "detail": NO_TEXT}
            self._put(waiting.popleft(), dict.fromkeys(COLUMNS) | {"error": NO_TEXT}, problem)

    def write(self, waiting: deque[Row], requests: Iterable[Iterable[ItemResult]]) -> None:
        """Writes the rows that these requests asked for."""
        for result in chain.from_iterable(requests):
            self.write_textless(waiting)
            problem = result.error.model_dump(exclude_none=True) if result.error is not None else None
            self._put(waiting.popleft(), to_columns(result), problem)

    def _put(self, row: Row, columns: Row, problem: Row | None) -> None:
        number = self._sink.rows + 1
        if problem is not None and self._wanted.fail_fast:
            raise RowFailedError(f"row {number}: {columns['error']}")
        added = {self._wanted.prefix + name: value for name, value in columns.items()}
        _check_free(added, row)
        self._sink.write(row, added, None if problem is None else {"row": number, "error": problem})
        self._progress.advance(problem is not None, columns["abstained"] is not None)


def _check_free(added: Iterable[str], columns: Collection[str]) -> None:
    taken = next((name for name in added if name in columns), None)
    if taken is not None:
        raise FileError(f"the input has a column {taken!r} of its own; choose another --prefix")


def _check_has(columns: Collection[str], wanted: Wanted) -> None:
    for name in (wanted.text_column, wanted.description_column):
        if name is not None and name not in columns:
            raise FileError(_no_column(name, columns))


def _item(row: Row, wanted: Wanted) -> dict[str, Any] | None:
    """The request for a row; None where it has no text, as where a line of JSON leaves it out."""
    text = row.get(wanted.text_column)
    description = None if wanted.description_column is None else row.get(wanted.description_column)
    if text is None or not (told := as_text(text)).strip():
        return None
    return {"text": told, "description": as_text(description) if description else None}


def _no_column(missing: str, columns: Collection[str]) -> str:
    found = ", ".join(map(repr, columns))
    if len(columns) == 1 and any(sign in found for sign in OTHER_DELIMITERS):
        return f"there is no column {missing!r}, only {found}; say by --delimiter what parts the cells"
    mend = "Name it with --text-column or --description-column"
    return f"there is no column {missing!r}; there are {found}. {mend}"

"""Parquet: the columns that a source's rows have, and those rows with further columns beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mole.files.formats import FileError, Format, Row, Source

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
ROWS = 4096
"""of a row group"""


def schema_of(source: Source) -> pa.Schema:
    """Every column that any row has, and its type.

    A Parquet source has its own; another is read for it, and again where a column has several types.

    Raises:
        FileError: a column's values are not of one type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.format is Format.PARQUET:
        return pq.ParquetFile(source.path).schema_arrow
    schema = pa.schema([])
    kinds: set[tuple[str, pa.DataType]] = set()
    for rows in _groups(source.rows()):
        names = dict.fromkeys(name for row in rows for name in row)
        with _fitting():
            columns = [(name, pa.array([row.get(name) for row in rows]).type) for name in names]
            schema = pa.unify_schemas([schema, pa.schema(columns)], promote_options="permissive")
        kinds.update(columns)
    if not schema.names:  # no row tells a type
        schema = pa.schema([(name, pa.string()) for name in source.columns])
    if len(kinds) > len(schema.names):  # a number may fit the type of its group, and not that of all
        for rows in _groups(source.rows()):
            with _fitting():
                pa.Table.from_pylist(rows, schema=schema)
    with _fitting():  # such as a struct without members, which Arrow has and Parquet has not
        pq.write_table(schema.empty_table(), BytesIO())
    return schema


def write_parquet(
    path: Path, source: Source, schema: pa.Schema, added: Iterator[Row], names: Sequence[str] = ()
) -> None:
    """The source's rows with further columns, in row groups.

    Args:
        path: where they go.
        source: the rows.
        schema: theirs.
        added: the further columns' values, row by row.
        names: the further columns where there is no row.

    Raises:
        FileError: a row is not as the schema says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None
    try:
        for pairs in _groups(zip(source.rows(), added, strict=True)):
            columns = [more for _, more in pairs]
            mine = pa.Table.from_pylist(columns, schema=_added_schema(columns[0]))
            with _fitting():
                table = pa.Table.from_pylist([row for row, _ in pairs], schema=schema)
                for name in mine.column_names:
                    table = table.append_column(name, mine[name])
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
        if writer is None:  # no rows: the columns are there all the same
            pq.write_table(pa.schema([*schema, *_added_schema(names)]).empty_table(), path)
    finally:
        if writer is not None:
            writer.close()


def _groups(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while group := list(islice(left, ROWS)):
        yield group


def _added_schema(names: Iterable[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.float64() if name.endswith("confidence") else pa.string()) for name in names])


@contextmanager
def _fitting() -> Iterator[None]:
    """Raises pyarrow's errors as FileError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise FileError(f"the rows do not fit Parquet: {error}; write JSON Lines instead") from error

"""Rows of JSON Lines, which need not have the same columns, as one Parquet table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mole.files.formats import FileError, Format, Source
from mole.files.sinks import FileSink

pytest.importorskip("pyarrow")
MANY = 4096 + 1
"""rows, more than a group has"""


def made(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source(str(folder / "in.jsonl"), Format.JSONL)
    out = FileSink(str(folder / "out.parquet"), Format.PARQUET, None, None, "s", source=source)
    for row in out.skip(source.rows()):
        out.write(row, {"mole_result": row["text"]}, None)
    out.close(finished=True)
    found: list[dict[str, Any]] = pq.read_table(folder / "out.parquet").to_pylist()
    return found


def test_a_column_that_only_later_rows_have_is_kept(tmp_path: Path):
    rows = [{"text": "a"}, {"text": "b", "n": 1}, *[{"text": "c"}] * MANY, {"text": "d", "n": 1.5, "m": "x"}]
    found = made(tmp_path, rows)
    assert found[0] == {"text": "a", "n": None, "m": None, "mole_result": "a"}
    assert found[1]["n"] == 1
    assert found[-1] == {"text": "d", "n": 1.5, "m": "x", "mole_result": "d"}


@pytest.mark.parametrize("last", ["many", 2**70, [1], "\ud800"])
@pytest.mark.parametrize("between", [0, MANY])
def test_rows_of_several_types_are_refused_before_anything_is_asked(tmp_path: Path, last: Any, between: int):
    with pytest.raises(FileError, match="do not fit Parquet"):
        made(tmp_path, [{"text": "a", "n": 1}] * (1 + between) + [{"text": "b", "n": last}])
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_what_parquet_does_not_know_is_refused_before_anything_is_asked(tmp_path: Path):
    with pytest.raises(FileError, match="do not fit Parquet"):
        made(tmp_path, [{"text": "a", "meta": {}}])
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("between", [0, MANY])
def test_a_number_that_the_type_of_all_cannot_hold_is_refused_before_anything_is_asked(
    tmp_path: Path, between: int
):
    rows = [{"text": "a", "n": 2**53 + 1}, *[{"text": "b"}] * between, {"text": "c", "n": 0.5}]
    with pytest.raises(FileError, match="do not fit Parquet"):
        made(tmp_path, rows)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_columns_of_one_name_are_told(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([pa.array([1, 2]), pa.array([10, 20]), pa.array(["a", "b"])], names=["v", "v", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(FileError, match="two columns are named 'v'"):
        list(Source(str(tmp_path / "in.parquet"), Format.PARQUET).rows())


def test_a_date_beyond_pythons_is_told(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a"], "day": pa.array([4_000_000], pa.date32())})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(FileError, match="a value cannot be read"):
        list(Source(str(tmp_path / "in.parquet"), Format.PARQUET).rows())

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

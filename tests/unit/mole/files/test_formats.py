"""Rows out of files, and rows as the bytes of files."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mole.files.formats import FileError, Format, Source, TextWriter, format_of

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5))
def test_csv_is_read_as_it_was_written(table: list[list[str]]):
    writer = TextWriter(Format.CSV, ["a", "b"])
    text = writer.head() + b"".join(writer.row(dict(zip("ab", cells, strict=True))) for cells in table)
    assert list(csv.reader(io.StringIO(text.decode(), newline="")))[1:] == table


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("kind", [Format.CSV, Format.TSV])
def test_any_end_of_a_line_in_a_cell_is_no_end_of_a_row(tmp_path: Path, kind: Format, end: str):
    rows = [{f"a{end}b": f"x{end}y", "c": end}, {f"a{end}b": "", "c": f"{end}z"}]
    writer = TextWriter(kind, list(rows[0]))
    content = writer.head() + b"".join(map(writer.row, rows))
    assert content.endswith(b'z"\n')
    assert read(tmp_path / "x", content, kind) == rows


def read(path: Path, content: bytes, kind: Format, **more: str) -> list[dict[str, object]]:
    path.write_bytes(content)
    return list(Source(str(path), kind, **more).rows())


def test_csv_with_a_mark_quotes_and_lines_in_cells(tmp_path: Path):
    content = '\ufefftext,n\r\n"a, ""b""\r\nc",1\r\n\r\nGrüße,2\r\n'.encode()
    rows = read(tmp_path / "x.csv", content, Format.CSV)
    assert rows == [{"text": 'a, "b"\r\nc', "n": "1"}, {"text": "Grüße", "n": "2"}]
    assert read(tmp_path / "x.csv", "a;b\n1,5;2\n".encode("cp1252"), Format.CSV, delimiter=";") == [
        {"a": "1,5", "b": "2"}
    ]
    assert read(tmp_path / "x.tsv", b"a\tb\n1\t2\n", Format.TSV) == [{"a": "1", "b": "2"}]
    assert read(tmp_path / "x.csv", b"", Format.CSV) == []
    assert Source(str(tmp_path / "x.tsv"), Format.TSV).count() == 1


def test_a_blank_line_is_a_row_of_one_column_but_not_at_the_end(tmp_path: Path):
    rows = read(tmp_path / "x.csv", b'text\n\na\n\n\n""\n\n\n', Format.CSV)
    assert [row["text"] for row in rows] == ["", "a", "", "", ""]
    assert read(tmp_path / "x.csv", b"a,b\n\n1,2\n\n", Format.CSV) == [{"a": "1", "b": "2"}]
    assert read(tmp_path / "x.csv", b"text\r\na\r\n\r\nb", Format.CSV) == [
        {"text": "a"}, {"text": ""}, {"text": "b"},
    ]  # fmt: skip


def test_json_lines(tmp_path: Path):
    rows = read(tmp_path / "x.jsonl", '{"text": "ü", "n": [1]}\n\n{"text": null}'.encode(), Format.JSONL)
    assert rows == [{"text": "ü", "n": [1]}, {"text": None}]


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        (Format.CSV, b"a,b\n1,2\n1\n", r"x:3: 1 cell, but the header has 2"),
        (Format.CSV, b'a,b\n"1,2\n', r"x:2: unexpected end"),
        (Format.CSV, b"a,a\n1,2\n", "the same name"),
        (Format.CSV, b"a\n\xff\n", "is not utf-8; name its --encoding"),
        (Format.JSONL, b"{}\n{", r"x:2: is no JSON"),
        (Format.JSONL, b"[1]\n", r"x:1: is no JSON object"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: Format, content: bytes, told: str):
    with pytest.raises(FileError, match=told):
        read(tmp_path / "x", content, kind)


def test_rows_are_written():
    lines = TextWriter(Format.JSONL, ["a"])
    assert lines.head() == b""
    assert json.loads(lines.row({"a": "\ud800ü\n", "b": None})) == {"a": "\ud800ü\n", "b": None}
    cells = TextWriter(Format.TSV, ["a", "b"])
    assert cells.row({"b": [1], "a": None}) == b"\t[1]\n"
    nested = {"a": [datetime(2026, 1, 2)], "b": {"n": Decimal("1.50")}}
    assert cells.row(nested) == b'"[""2026-01-02 00:00:00""]"\t"{""n"": ""1.50""}"\n'
    with pytest.raises(FileError, match="'c' is not in the first row"):
        cells.row({"c": 1})


def test_the_name_tells_the_format():
    assert format_of("x.NDJSON", None) is Format.JSONL
    assert format_of("x.txt", Format.CSV) is Format.CSV
    assert format_of("-", None, Format.TSV) is Format.TSV
    with pytest.raises(FileError, match="tells no format"):
        format_of("x.txt", None)

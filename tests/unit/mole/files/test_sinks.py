"""Rows are certain or not there: what is written is cut back, verified and gone on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from mole.files.formats import FileError, Format, Source
from mole.files.sinks import FileSink, StandardSink

ROWS = [{"text": f"t{i}"} for i in range(10)]


def sink(folder: Path, restart: bool = False, settings: object = "s") -> FileSink:
    return FileSink(str(folder / "out.jsonl"), Format.JSONL, None, folder / "e", settings, restart=restart)


def write(into: FileSink, rows: list[dict[str, str]]) -> None:
    for row in into.skip(iter(rows)):
        into.write(row, {"mole_result": "x"}, {"row": into.rows} if row["text"] == "t1" else None)


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_crash_in_the_middle_of_a_row_costs_no_row_and_doubles_none(tmp_path: Path):
    first = sink(tmp_path)
    write(first, ROWS[:4])
    first.keep()
    first.write({"text": "t4"}, {"mole_result": "x"}, {"row": 5})
    first._part.flush()
    first._errors.close()
    first._part.close()  # as a kill would: the journal knows of four rows
    with (tmp_path / "out.jsonl.part").open("ab") as torn:
        torn.write(b'{"text": "t5", "mo')
    second = sink(tmp_path)
    assert (second.rows, second.failed) == (4, 1)
    write(second, ROWS)
    second.close(finished=True)
    assert [row["text"] for row in lines(tmp_path / "out.jsonl")] == [row["text"] for row in ROWS]
    assert lines(tmp_path / "e") == [{"row": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "out.jsonl"]


def test_an_interrupt_at_any_line_of_writing_costs_no_row_and_doubles_none(tmp_path: Path):
    at = 0
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        first = sink(folder)
        write(first, ROWS[:1])
        interrupted = interrupt_at_line(
            at, lambda into=first: into.write(ROWS[1], {"mole_result": "x"}, {"row": 1})
        )
        first.close(finished=False)
        second = sink(folder)
        write(second, ROWS)
        second.close(finished=True)
        assert [row["text"] for row in lines(folder / "out.jsonl")] == [row["text"] for row in ROWS]
        assert lines(folder / "e") == [{"row": 1}]
        assert second.failed == 1
        if not interrupted:
            break
        at += 1
    assert at > 10


def interrupt_at_line(number: int, call: Callable[[], None]) -> bool:
    """Calls it with a Ctrl-C before the line of `FileSink.write` of that number; whether it came so far."""
    left = number

    def trace(frame: FrameType, event: str, _arg: object) -> object:
        nonlocal left
        if frame.f_code is not FileSink.write.__code__:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_cells_go_under_their_columns_after_a_resume(tmp_path: Path):
    """Rows of JSON Lines may tell their columns in any order, and not all of them."""
    rows = [{"text": "a", "n": "1"}, {"n": "2", "text": "b"}, {"text": "c"}]

    def run(rows: list[dict[str, str]], finished: bool) -> None:
        out = FileSink(str(tmp_path / "out.jsonl"), Format.CSV, ";", None, "s")
        try:
            for row in out.skip(iter(rows)):
                out.write(row, {"mole_result": row["text"].upper()}, None)
        finally:
            out.close(finished)

    run(rows[:1], finished=False)
    with pytest.raises(FileError, match="'new' is not in the first row"):
        run([rows[0], rows[1] | {"new": "x"}], finished=False)
    run(rows[:2], finished=False)
    run(rows, finished=True)
    assert (tmp_path / "out.jsonl").read_text() == "text;n;mole_result\na;1;A\nb;2;B\nc;;C\n"


def test_without_a_row_the_columns_are_there(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    for name, kind, told in (("a", Format.TSV, "text\tn\tmole_result\n"), ("b", Format.JSONL, "")):
        out = FileSink(str(tmp_path / name), kind, None, None, "s")
        out.head(["text", "n"], ["mole_result"])
        out.close(finished=True)
        assert (tmp_path / name).read_text() == told
    standard = StandardSink(Format.CSV, None, None)
    standard.head(["text"], ["mole_result"])
    standard.close(finished=True)
    assert capfdbinary.readouterr().out == b"text,mole_result\n"


def test_an_interrupt_while_earlier_rows_are_passed_over_leaves_the_journal_alone(tmp_path: Path):
    first = sink(tmp_path)
    write(first, ROWS[:4])
    first.close(finished=False)

    def interrupted() -> Iterator[dict[str, str]]:
        yield ROWS[0]
        raise KeyboardInterrupt

    second = sink(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        second.skip(interrupted())
    second.close(finished=False)
    third = sink(tmp_path)
    write(third, ROWS)
    third.close(finished=True)
    assert len(lines(tmp_path / "out.jsonl")) == len(ROWS)


def test_another_input_or_other_options_are_refused(tmp_path: Path):
    first = sink(tmp_path)
    write(first, ROWS[:4])
    first.close(finished=False)
    with pytest.raises(FileError, match="other options"):
        sink(tmp_path, settings="t")
    second = sink(tmp_path)
    with pytest.raises(FileError, match="the input has changed"):
        second.skip(iter([{"text": "other"}, *ROWS[1:]]))
    second.close(finished=False)
    third = sink(tmp_path)
    with pytest.raises(FileError, match="the input has changed"):
        third.skip(iter(ROWS[:2]))
    third.close(finished=False)
    anew = sink(tmp_path, restart=True)
    assert anew.rows == 0
    write(anew, ROWS[:1])
    anew.close(finished=True)
    assert len(lines(tmp_path / "out.jsonl")) == 1
    assert lines(tmp_path / "e") == []


def test_two_runs_at_once_are_refused(tmp_path: Path):
    first = sink(tmp_path)
    with pytest.raises(FileError, match="another run is writing"):
        sink(tmp_path)
    first.close(finished=False)


def test_what_is_there_is_not_written_over(tmp_path: Path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(FileError, match="is there already"):
        sink(tmp_path)
    assert (tmp_path / "out.jsonl").read_text() == "mine"


@pytest.mark.parametrize("broken", ["{", "{}", '{"version": 2}', "[]"])
def test_a_damaged_journal_is_told(tmp_path: Path, broken: str):
    (tmp_path / "out.jsonl.part.json").write_text(broken)
    with pytest.raises(FileError, match="damaged"):
        sink(tmp_path)


def test_a_journal_of_another_version_is_told(tmp_path: Path):
    (tmp_path / "out.jsonl.part.json").write_text('{"version": 1}')
    with pytest.raises(FileError, match="another version"):
        sink(tmp_path)


def test_a_file_of_errors_that_is_not_of_this_run_is_kept(tmp_path: Path):
    (tmp_path / "e").write_text("mine")
    with pytest.raises(FileError, match="e is there already"):
        sink(tmp_path)
    with pytest.raises(FileError, match="e is there already"):
        StandardSink(Format.JSONL, None, tmp_path / "e")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("e", "mine")]
    sink(tmp_path, restart=True).close(finished=False)
    assert (tmp_path / "e").read_text() == ""
    (tmp_path / "e").write_text("mine")
    StandardSink(Format.JSONL, None, tmp_path / "e", restart=True).close(finished=True)
    assert (tmp_path / "e").read_text() == ""


def test_a_run_that_was_killed_before_its_first_row_was_certain_is_gone_on_with(tmp_path: Path):
    first = sink(tmp_path)
    first.write(ROWS[1], {"mole_result": "x"}, {"row": 1})
    first._part.close()
    first._errors.close()  # as a kill would
    second = sink(tmp_path)
    write(second, ROWS)
    second.close(finished=True)
    assert lines(tmp_path / "e") == [{"row": 1}]


@pytest.mark.parametrize("errors", [None, "other"])
def test_errors_go_on_where_they_were(tmp_path: Path, errors: str | None):
    first = sink(tmp_path)
    write(first, ROWS[:2])
    first.close(finished=False)
    path = tmp_path / errors if errors else None
    with pytest.raises(FileError, match=f"of a run with --errors {tmp_path / 'e'}"):
        FileSink(str(tmp_path / "out.jsonl"), Format.JSONL, None, path, "s")
    assert lines(tmp_path / "e") == [{"row": 1}]


def test_a_run_without_errors_goes_on_without(tmp_path: Path):
    first = FileSink(str(tmp_path / "out.jsonl"), Format.JSONL, None, None, "s")
    write(first, ROWS[:2])
    first.close(finished=False)
    with pytest.raises(FileError, match="of a run without --errors"):
        sink(tmp_path)


def test_a_part_that_was_shortened_is_told(tmp_path: Path):
    first = sink(tmp_path)
    write(first, ROWS[:4])
    first.close(finished=False)
    (tmp_path / "out.jsonl.part").write_bytes(b"")
    with pytest.raises(FileError, match="shorter than it was"):
        sink(tmp_path)


def test_parquet_keeps_the_types_of_its_source(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": ["a", None, "c"], "n": pa.array([1, 2, None], pa.int16())})
    pq.write_table(table, tmp_path / "in.parquet")
    source = Source(str(tmp_path / "in.parquet"), Format.PARQUET)
    assert source.count() == 3
    out = FileSink(str(tmp_path / "out.parquet"), Format.PARQUET, None, None, "s", source=source)
    for row in out.skip(source.rows()):
        out.write(row, {"mole_result": row["text"], "mole_confidence": 0.5}, None)
    out.close(finished=True)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.field("n").type == pa.int16()
    assert found.schema.field("mole_confidence").type == pa.float64()
    assert found.to_pylist()[1] == {"text": None, "n": 2, "mole_result": None, "mole_confidence": 0.5}
    assert not (tmp_path / "out.parquet.part").exists()


def test_parquet_without_rows_has_every_column(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"n": pa.array([], pa.int16())}), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("n\n")
    for name, kind, own in (("in.parquet", Format.PARQUET, pa.int16()), ("in.csv", Format.CSV, pa.string())):
        source = Source(str(tmp_path / name), kind)
        out = FileSink(str(tmp_path / f"{name}.out"), Format.PARQUET, None, None, "s", source=source)
        assert list(out.skip(source.rows())) == []
        out.head(source.columns, ["mole_result", "mole_confidence"])
        out.close(finished=True)
        found = pq.read_table(tmp_path / f"{name}.out").schema
        assert found.names == ["n", "mole_result", "mole_confidence"]
        assert found.types == [own, pa.string(), pa.float64()]


def test_parquet_needs_a_source_that_can_be_read_twice(tmp_path: Path):
    with pytest.raises(FileError, match="read only once"):
        FileSink("x.parquet", Format.PARQUET, None, None, "s", source=Source("-", Format.JSONL))


def test_a_run_that_began_anew_over_an_output_is_gone_on_with(tmp_path: Path):
    (tmp_path / "out.jsonl").write_text("of before")
    begun = sink(tmp_path, restart=True)
    write(begun, [{"text": "a"}])
    begun.close(finished=False)
    assert (tmp_path / "out.jsonl").read_text() == "of before"
    again = sink(tmp_path)
    assert again.rows == 1
    write(again, [{"text": "a"}, {"text": "b"}])
    again.close(finished=True)
    assert [line["text"] for line in lines(tmp_path / "out.jsonl")] == ["a", "b"]
    with pytest.raises(FileError, match="is there already"):
        sink(tmp_path)

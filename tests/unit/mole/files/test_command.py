"""`mole classify-file` as its own process, against a service that answers batches."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mole.cli.classify_file_command import HINT, HINT_RESTARTED
from tests.unit.mole.test_command import mole
from tests.unit.mole.test_many import Service, service

__all__ = ["service"]
NAMES = ["result", "confidence", "task", "language", "abstained", "entities", "request_id", "error"]


def test_csv_in_csv_out_in_order(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("n,text\n" + "".join(f'{i},"t{i}, x"\n' for i in range(300)) + "300,\n")
    done = mole(
        "classify-file", str(source), str(target), "-d", "Good?", "-t", "a/b", "--url", service.url,
        "--concurrency", "30", "--batch-size", "10",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("301 rows, 1 failed; ")
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["n", "text", *(f"mole_{name}" for name in NAMES)]
    assert [row["n"] for row in rows] == [str(i) for i in range(301)]
    assert all(row["mole_result"] == row["text"] for row in rows)
    assert rows[300]["mole_error"] == "The row has no text."
    asked = {"text": "t0, x", "description": "Good?", "options": {"task": "a/b"}}
    assert asked in [items[0] for items in service.batches]
    assert service.most <= 3


def test_standard_input_and_output(service: Service):
    lines = [{"q": f"Which {i}?", "body": f"t{i}"} for i in range(5)]
    done = mole(
        "classify-file", "-", "-", "--text-column", "body", "--description-column", "q", "--json",
        stdin="".join(json.dumps(line) + "\n" for line in lines), MOLE_URL=service.url,
    )  # fmt: skip
    assert done.returncode == 0
    assert [json.loads(line)["mole_result"] for line in done.stdout.splitlines()] == [
        f"t{i}" for i in range(5)
    ]
    assert json.loads(done.stderr)["rows"] == 5
    assert [item["description"] for item in service.batches[0]] == [f"Which {i}?" for i in range(5)]


def test_failed_rows_are_told_in_place_and_in_a_file(service: Service, tmp_path: Path):
    source, target, errors = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("a", "wrong 1", "b", "wrong 2")))
    done = mole(
        "classify-file", str(source), str(target), "--errors", str(errors), "--json", "--url", service.url
    )
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["failed"]) == (4, 2)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["mole_error"] for row in rows] == [None, "No (400): wrong 1", None, "No (400): wrong 2"]
    told = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [(error["row"], error["error"]["status"]) for error in told] == [(2, 400), (4, 400)]


def test_abstentions_are_counted_and_told(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\na\nunfit 1\nunfit 2\n")
    done = mole("classify-file", str(source), str(target), "--url", service.url)
    assert done.returncode == 0
    assert done.stderr.startswith("3 rows, 2 abstained; ")
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mole_abstained"] for row in rows] == ["", "out_of_scope", "out_of_scope"]


def test_fail_fast_ends_and_goes_on_where_it_was(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "a"}\n{"text": "wrong"}\n{"text": "b"}\n')
    given = ["classify-file", str(source), str(target), "--url", service.url]
    done = mole(*given, "--fail-fast")
    assert done.returncode == 1
    assert "row 2: No (400): wrong" in done.stderr
    assert not target.exists()
    done = mole(*given)
    assert done.returncode == 1
    assert "3 rows, 1 of them by earlier runs, 1 failed" in done.stderr
    assert len(target.read_text().splitlines()) == 3


def test_a_run_that_began_anew_is_gone_on_with_without_restart(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "a"}\n{"text": "wrong"}\n{"text": "b"}\n')
    target.write_text("of before")
    given = ["classify-file", str(source), str(target), "--url", service.url]
    done = mole(*given, "--fail-fast", "--restart", "--batch-size", "1", "--concurrency", "1")
    assert (done.returncode, target.read_text()) == (1, "of before")
    assert HINT_RESTARTED in done.stderr
    assert "3 rows, 1 of them by earlier runs, 1 failed" in mole(*given).stderr
    assert len(target.read_text().splitlines()) == 3


def test_lines_of_json_need_not_have_the_same_columns(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text('{"text": "a"}\n{"n": 1}\n{"text": "b", "note": "x"}\n')
    done = mole("classify-file", str(source), str(target), "--url", service.url)
    assert done.returncode == 1
    assert "3 rows, 1 failed" in done.stderr
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["text", "n", "note"]
    assert [(row["text"], row["n"], row["note"]) for row in rows] == [
        ("a", "", ""),
        ("", "1", ""),
        ("b", "", "x"),
    ]
    assert [row["mole_error"] for row in rows] == ["", "The row has no text.", ""]


def test_text_that_is_written_as_bytes_is_read_as_text(service: Service, tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    texts = pa.array(["Grüße".encode(), b"\xff", None], pa.binary())
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    mole("classify-file", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), "--url", service.url)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["mole_result"].to_pylist() == ["Grüße", "\ufffd", None]
    assert found["text"].to_pylist() == texts.to_pylist()


def test_parquet(service: Service, tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "in.parquet")
    for target in ("out.parquet", "out.csv"):
        done = mole(
            "classify-file", str(tmp_path / "in.parquet"), str(tmp_path / target), "--url", service.url
        )
        assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out.parquet").to_pydict()["mole_result"] == ["a", "b"]
    assert (tmp_path / "out.csv").read_text().startswith("text,n,mole_result,")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["empty.csv", "out.csv"], 1, "there is no column 'text'; there are 'a'. Name it with --text-column"),
        (["in.csv", "out.csv"], 1, "there is no column 'text'; there are 'a'. Name it with --text-column"),
        (["in.csv", "out.xlsx"], 1, "tells no format"),
        (["gone.csv", "out.csv"], 1, "there is no file"),
        (["in.csv", "in.csv"], 2, "the same file"),
        (["in.csv", "out.csv", "--errors", "in.csv"], 2, "--errors is IN or OUT"),
        (["in.csv", "-", "--output-format", "parquet"], 1, "standard output"),
        (["in.csv", "out.csv", "--concurrency", "0"], 2, "concurrency"),
        (["in.csv", "out.csv", "--delimiter", ""], 2, "--delimiter: '' is no single character"),
        (["in.csv", "out.csv", "--delimiter", "::"], 2, "--delimiter: '::' is no single character"),
        (["in.csv", "out.csv", "--delimiter", '"'], 2, "is no single character"),
        (["in.csv", "out.csv", "--encoding", "latin99"], 2, "--encoding: there is no 'latin99'"),
        (["in.csv", "out.csv", "--encoding", "hex"], 2, "--encoding: there is no 'hex'"),
    ],
)
def test_what_is_wrong_is_told(
    service: Service, tmp_path: Path, arguments, code: int, told: str, monkeypatch
):
    (tmp_path / "in.csv").write_text("a\nx\n")
    (tmp_path / "empty.csv").write_text("a\n")
    given = [str(tmp_path / a) if "." in a else a for a in arguments]
    done = mole("classify-file", *given, MOLE_URL=service.url)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("*.part*"))


def test_a_tab_may_be_written_as_two_characters(service: Service, tmp_path: Path):
    (tmp_path / "in.csv").write_text("n\ttext\n1\ta\n")
    given = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--delimiter", r"\t"]
    assert mole("classify-file", *given, "--url", service.url).returncode == 0
    assert (tmp_path / "out.csv").read_text().startswith("n\ttext\tmole_result\t")


def test_no_service_is_exit_code_3(tmp_path: Path):
    (tmp_path / "in.csv").write_text("text\nx\n")
    done = mole(
        "classify-file", str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--attempts", "1",
        "--url", "http://127.0.0.1:9",
    )  # fmt: skip
    assert done.returncode == 3
    assert "no MoLE service answers" in done.stderr


class Run:
    """A command in a process of its own that has a request in flight which is never answered."""

    def __init__(self, service: Service, folder: Path, first: list[str], *more: str) -> None:
        self.target = folder / "out.jsonl"
        self.texts = [*first, "hold", *["after"] * 100]
        (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in self.texts))
        self.given = [
            "classify-file",
            str(folder / "in.jsonl"),
            str(self.target),
            "--url",
            service.url,
            *more,
        ]
        self.service = service
        service.hold.clear()
        command = [sys.executable, "-m", "mole.cli.main", *self.given]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def ends(self) -> tuple[int, str]:
        """Its exit code and what it told, while that request is in flight still."""
        _, told = self.process.communicate(timeout=50)
        assert self.service.now >= 1
        assert "Traceback" not in told
        return self.process.returncode, told

    def goes_on(self) -> None:
        self.service.hold.set()
        done = mole(*self.given)
        assert done.returncode == 0
        assert "of them by earlier runs" in done.stderr
        rows = [json.loads(line)["text"] for line in self.target.read_text().splitlines()]
        assert rows == self.texts


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_ends_at_once_and_keeps_what_is_written(service: Service, tmp_path: Path, times: int):
    run = Run(service, tmp_path, [f"t{i}" for i in range(600)])
    assert service.held.wait(50)
    for _ in range(times):
        run.process.send_signal(signal.SIGINT)
    code, told = run.ends()
    assert code == 130
    assert f"rows: {HINT}\n" in told or times == 2
    run.goes_on()


def test_a_failed_row_ends_at_once_whatever_is_in_flight(service: Service, tmp_path: Path):
    run = Run(service, tmp_path, ["a", "wrong, late"], "--fail-fast", "--batch-size", "2")
    assert run.ends() == (1, f"mole: row 2: No (400): wrong, late; {HINT}\n")


def test_a_refusal_ends_at_once_whatever_is_in_flight(service: Service, tmp_path: Path):
    run = Run(service, tmp_path, ["refused, late"], "--batch-size", "1")
    assert run.ends() == (
        1,
        "mole: Forbidden (403): Not you. Use a key that may do this: set MOLE_API_KEY.\n",
    )


def of_texts(folder: Path, service: Service, texts: list[str], *more: str) -> tuple[list[str], Path]:
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    target = folder / "out.jsonl"
    given = ["classify-file", str(folder / "in.jsonl"), str(target), "--url", service.url, "--attempts", "1"]
    return [*given, *more], target


@pytest.mark.parametrize(
    ("size", "texts", "what", "last"),
    [
        ("1", ["t0", "t1", *(f"down {i}" for i in range(6))], "3 requests in a row", "2"),
        ("2", ["t0", "t1", *(f"down {i}" for i in range(6))], "3 requests in a row", "5"),
        ("1", ["down 0", "down 1"], "2 requests in a row", "1"),
        ("2", ["down 0", "down 1"], "a request", "1"),
    ],
)  # fmt: skip
def test_where_nothing_is_served_the_run_ends_and_can_be_gone_on_with(
    service: Service, tmp_path: Path, size: str, texts: list[str], what: str, last: str
):
    given, target = of_texts(tmp_path, service, texts)
    done = mole(*given, "--batch-size", size)
    told = f"mole: nothing of {what} was served: No (503): down {last}; {HINT}\n"
    assert (done.returncode, done.stderr) == (3, told)
    written = texts.index("down 0")
    if written:
        assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == written
    service.recovered = True
    done = mole(*given)
    assert done.returncode == 0
    assert not written or f"{len(texts)} rows, {written} of them by earlier runs" in done.stderr
    assert [json.loads(line)["mole_result"] for line in target.read_text().splitlines()] == texts


def test_what_fails_fast_waits_for_no_other_request(service: Service, tmp_path: Path):
    given, _ = of_texts(tmp_path, service, ["a", "down", "b"], "--batch-size", "1", "--fail-fast")
    done = mole(*given)
    said = f"mole: nothing of a request was served: No (503): down; {HINT}\n"
    assert (done.returncode, done.stderr) == (3, said)


@pytest.mark.parametrize("size", ["1", "2", "3"])
def test_rows_that_are_too_slow_by_themselves_stop_no_run(service: Service, tmp_path: Path, size: str):
    texts = ["slow 1", "slow 2", "slow 3", "a"]
    given, target = of_texts(tmp_path, service, texts, "--batch-size", size)
    assert mole(*given).returncode == 1
    assert [json.loads(line)["text"] for line in target.read_text().splitlines()] == texts


def test_rows_of_a_task_whose_worker_is_down_stop_no_run(service: Service, tmp_path: Path):
    texts = ["down 1", "", "down 2", "a", "down 3", "b", "down 4", "down 5"]
    given, target = of_texts(tmp_path, service, texts, "--batch-size", "1")
    assert mole(*given).returncode == 1
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    assert [row["mole_result"] for row in rows if not row["mole_error"]] == ["a", "b"]


def test_a_request_that_is_refused_for_now_is_exit_code_3(coordinator, tmp_path: Path):
    coordinator.answers(
        {"type": "t", "title": "Full", "status": 429, "detail": "Later."}, 429, Retry_After="900"
    )
    (tmp_path / "in.csv").write_text("text\nx\n")
    given = ["classify-file", str(tmp_path / "in.csv"), "-", "--url", coordinator.url]
    done = mole(*given)
    assert (done.returncode, done.stderr) == (3, "mole: Full (429): Later. Try again in 900 s.\n")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_without_a_row_the_columns_are_there(service: Service, tmp_path: Path, suffix: str):
    source, target = tmp_path / "in.csv", tmp_path / f"out.{suffix}"
    source.write_text("n,text\n")
    done = mole("classify-file", str(source), str(target), "--url", service.url)
    assert (done.returncode, done.stderr) == (0, "0 rows; 0/s, 0 s\n")
    columns = ["n", "text", *(f"mole_{name}" for name in NAMES)]
    if suffix == "jsonl":
        assert target.read_bytes() == b""
    elif suffix == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        assert pq.read_table(target).column_names == columns
    else:
        assert target.read_text() == ("\t" if suffix == "tsv" else ",").join(columns) + "\n"


def test_without_a_row_standard_output_has_the_columns_too(service: Service):
    given = ["classify-file", "-", "-", "--input-format", "csv", "--url", service.url]
    done = mole(*given, stdin="n,text\n")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stdout.startswith("n,text,mole_result,")
    done = mole(*given, "--description-column", "q", stdin="n,text\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no column 'q'; there are 'n', 'text'" in done.stderr


def test_the_delimiter_of_one_format_is_not_the_other_ones(service: Service, tmp_path: Path):
    (tmp_path / "in.csv").write_text("n;text\n1;a\n")
    (tmp_path / "in.jsonl").write_text('{"n": 1, "text": "a"}\n')
    for source, target, sign in (
        ("in.csv", "out.tsv", "\t"), ("in.csv", "out.csv", ";"), ("in.jsonl", "lines.csv", ";")
    ):  # fmt: skip
        given = ["classify-file", str(tmp_path / source), str(tmp_path / target), "--delimiter", ";"]
        assert mole(*given, "--url", service.url).returncode == 0
        assert (tmp_path / target).read_text().startswith(sign.join(("n", "text", "mole_result", "")))


def test_a_column_of_the_input_is_never_written_over(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text,mole_result\na,mine\n")
    given = ["classify-file", str(source), str(target), "--url", service.url]
    done = mole(*given)
    assert (done.returncode, target.exists()) == (1, False)
    assert "'mole_result'" in done.stderr
    assert mole(*given, "--prefix", "m_", "--restart").returncode == 0
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["mole_result"], row["m_result"]) == ("mine", "a")


@pytest.mark.parametrize(
    ("content", "target", "told"),
    [
        ("n;text\n1;a\n", "out.csv", "there is no column 'text', only 'n;text'; say by --delimiter"),
        ("n,body\n1,a\n", "out.csv", "there are 'n', 'body'. Name it with --text-column"),
        ("n,text\na\n", "out.csv", "in.csv:2: 1 cell, but the header has 2"),
        ("text\na\n", "gone/out.csv", "there is no folder"),
        ("text\na\n", "out.xlsx", "--output-format"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line_that_names_the_mend(
    service: Service, tmp_path: Path, content: str, target: str, told: str
):
    (tmp_path / "in.csv").write_text(content)
    done = mole("classify-file", str(tmp_path / "in.csv"), str(tmp_path / target), "--url", service.url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert told in done.stderr

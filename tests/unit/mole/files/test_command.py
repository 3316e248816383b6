"""`mole classify-file` as its own process, against a service that answers batches."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_an_interrupt_ends_at_once_and_keeps_what_is_written(service: Service, tmp_path: Path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"t{i}" for i in range(600)] + ["hold"] + ["after"] * 100
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    service.hold.clear()
    given = ["classify-file", str(source), str(target), "--url", service.url]
    run = subprocess.Popen([sys.executable, "-m", "mole.cli.main", *given], stderr=subprocess.PIPE, text=True)
    while not any(item["text"] == "hold" for items in service.batches for item in items):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)  # a request is in flight and stays there
    _, told = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    service.hold.set()
    done = mole(*given)
    assert done.returncode == 0
    assert "of them by earlier runs" in done.stderr
    rows = [json.loads(line)["text"] for line in target.read_text().splitlines()]
    assert rows == texts


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

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_router.training.evaluate import summarise
from moe_router.training.report import markdown, write
from tests.unit.moe_router.training.decided import FEW, decision, judged

TEST = (judged("finance/x", decision("finance/x", 0.9)), judged("oos/cooking", decision("b/z", 0.2)))


@pytest.fixture
def result() -> dict[str, Any]:
    language = {"five_words": {"accuracy": 0.97, "errors_by_language": {}}}
    return summarise(FEW) | {"test": summarise(TEST), "language": language}


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of cells, the head first, by the head's first cell."""
    found = {}
    for block in text.split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found[rows[0][0]] = [rows[0], *rows[2:]]
    return found


def test_every_table_is_a_rectangle_that_fits_a_terminal(result):
    for block in markdown(result).split("\n\n"):
        lines = block.splitlines()
        assert {len(line) for line in lines} == {len(lines[0])}
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
        assert set(lines[1]) <= set("|-: ")
        assert len(lines[0]) <= 80


def test_the_figures_stand_beside_those_of_the_test(result):
    rows = {row[0]: row[1:] for row in tables(markdown(result))["what"]}
    assert rows["task accuracy with a description"] == ["0.6667", "1.0000"]
    assert rows["expected calibration error, task"][0] == "0.4600"
    assert rows["expected calibration error, domain"] == ["0.4667", "0.0000"]
    assert rows["answered, and wrong of these"] == ["0.6000, 0.6667", "1.0000, 0.5000"]
    assert rows["language of five words"] == ["0.9700", ""]


def test_the_risk_is_told_for_some_coverages(result):
    head, *rows = tables(markdown(result))["wrong, of the surest"]
    assert head[1:] == ["validation", "test"]
    assert [row[0] for row in rows] == ["100 %", "95 %", "90 %", "80 %", "70 %", "50 %"]
    assert rows[0][1:] == ["0.6000", "0.5000"]
    assert rows[-1][1:] == ["0.5000", "0.0000"]


def test_the_confusion_matrix_is_square_and_has_none(result):
    found = tables(markdown(result))
    assert found["validation: asked, answered"] == [
        ["validation: asked, answered", "1", "2", "none"],
        ["1 finance/x", "1", "", "1"],
        ["2 social/y", "1", "", ""],
        ["none", "1", "", "1"],
    ]
    # b/z is asked for by nobody, but answers the request that fits nothing.
    assert found["test: asked, answered"][1:] == [
        ["1 b/z", "", "", ""],
        ["2 finance/x", "", "1", ""],
        ["none", "1", "", ""],
    ]


def test_what_the_test_has_none_of_is_left_empty(result):
    found = tables(markdown(result))
    assert found["task"][1:] == [
        ["finance/x", "1.0000", "2", "1.0000", "1"],
        ["social/y", "0.0000", "1", "", ""],
    ]


def test_the_matrix_of_many_tasks_with_long_names_fits_too(result):
    keys = [f"general/a_task_of_a_name_{i}" for i in range(9)]
    many = [judged(key, decision(key, 0.9)) for key in keys for _ in range(400)]
    result["confusion"] = summarise([*many, *FEW[3:]])["confusion"]
    block = markdown(result).split("\n\n")[-2]
    assert max(map(len, block.splitlines())) <= 80


def test_all_is_written(result, tmp_path: Path):
    write(result, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "gating.json").read_text(encoding="utf-8")) == result
    assert markdown(result) in (tmp_path / "out" / "gating.md").read_text(encoding="utf-8")
    for name in ("gating-reliability.png", "gating-coverage-risk.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")

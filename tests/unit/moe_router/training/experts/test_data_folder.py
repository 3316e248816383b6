"""A data folder made of another is one that training reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moe_router.contracts import Entity
from moe_router.errors import RequestError
from moe_router.training.experts.data_folder import extend
from moe_router.training.experts.examples import CHOOSING, Row, read_rows
from tests.unit.moe_router.training import expert_fixtures as fixtures

ADA = Entity(type="PERSON", start=0, end=3, value="Ada", confidence=1.0)


@pytest.mark.parametrize(
    "row",
    [
        Row("Ada lives.", "en", entities=(ADA,)),
        Row("Ça va", "fr", "positive"),
        Row("A shoe", "en", "exact", context={"query": "boots"}),
    ],
)
def test_rows_are_made_of_others(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = fixtures.write(tmp_path / "data", [row], [row]), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(source), "--output", str(output), "--seed", "7"])
    extend(None, lambda rows, seed: [*rows] * (seed - 4))
    assert read_rows(output / "train.jsonl.gz") == [row] * 3
    assert read_rows(output / "validation.jsonl.gz") == [row]
    assert "3 rows made of 1" in capsys.readouterr().out


def test_rows_to_choose_by_are_kept_and_others_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (Row(f"text {n}", "en", "positive") for n in range(3))
    source, once, twice = fixtures.write(tmp_path / "data", [first], [first]), tmp_path / "1", tmp_path / "2"
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(source), "--output", str(once)])
    extend(None, lambda rows, seed: [], lambda rows: [second])
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(once), "--output", str(twice)])
    extend(None, lambda rows, seed: [], lambda rows: [third])
    assert [read_rows(folder / CHOOSING) for folder in (once, twice)] == [[second], [second, third]]
    assert not (source / CHOOSING).exists()


def test_a_folder_is_not_written_over_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(tmp_path), "--output", str(tmp_path / ".")])
    with pytest.raises(SystemExit):
        extend(None, lambda rows, seed: [])
    assert list(tmp_path.iterdir()) == []


def test_rows_of_further_datasets_are_mixed_with_those_that_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = ([Row(f"{name} {n}", "en", "positive") for n in range(20)] for name in ("own", "other"))
    seen = Row("Other  7", "en", "positive")
    source, output = fixtures.write(tmp_path / "data", own, [seen]), tmp_path / "out"
    command = ["x", "--data", str(source), "--output", str(output), "--seed", "3"]
    further = {"more": lambda path: other if path.name == "there" else [], "none": lambda path: [own[0]]}
    made = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [*command, "--more", "there"])
        extend(None, lambda rows, seed: [*rows], further=further)
        made.append(read_rows(output / "train.jsonl.gz"))
    assert made[0] == made[1]
    assert sorted(made[0], key=repr) == sorted([*own, *other[:7], *other[8:]], key=repr)
    assert {row.text.split()[0] for row in made[0][:20]} == {"own", "other"}
    assert "39 rows made of 20 and 19 of other datasets" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", command)
    extend(None, lambda rows, seed: [*rows], further=further)
    assert read_rows(output / "train.jsonl.gz") == own


def test_a_dataset_that_cannot_be_read_is_told_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> list[Row]:
        raise RequestError(f"{path}: no such file")

    row = Row("text", "en", "positive")
    source, output = fixtures.write(tmp_path / "data", [row], [row]), tmp_path / "out"
    given = ["--output", str(output), "--more", "gone.csv"]
    for folder, error in ((source, "gone.csv: no such"), (tmp_path, "train.jsonl.gz: FileNotFoundError")):
        monkeypatch.setattr(sys, "argv", ["x", "--data", str(folder), *given])
        with pytest.raises(SystemExit):
            extend(None, lambda rows, seed: [*rows], further={"more": broken})
        assert error in capsys.readouterr().err
    assert not output.exists()

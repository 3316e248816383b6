from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from moe_router.errors import RequestError
from moe_router.experts.engines.base import DecodeJob
from moe_router.experts.scoring import log_softmax
from moe_router.training.experts import examples
from moe_router.training.experts.examples import Row, examples_of, halves, read_rows, request_of
from tests.unit.moe_router.training import expert_fixtures as fixtures


def test_choices_stand_where_labels_part_and_name_the_right_token(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/intent")
    row = fixtures.rows(1)[0]
    [job] = expert.prepare(request_of(row, "bank/intent")).jobs
    [example] = examples_of(expert, [row])
    prompt = (*job.prompt.head, *job.prompt.tail)
    assert example.tokens[: len(prompt)] == prompt
    assert example.choices[0].at >= len(prompt) - 1
    for choice, following in zip(example.choices, example.choices[1:], strict=False):
        assert example.tokens[choice.at + 1] == choice.options[choice.gold]
        assert choice.at < following.at
    assert example.choices[-1].at == len(example.tokens) - 1


def test_an_extractions_choices_lead_its_decoder_to_the_entities(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/pii")
    row = fixtures.entity_row()
    [example] = examples_of(expert, [row])
    work = expert.prepare(request_of(row, "bank/pii"))
    [job] = work.jobs
    assert isinstance(job, DecodeJob)
    decoder = job.decoder()
    decision = next(decoder)
    for choice in example.choices[:-1]:
        assert decision.choices == choice.options
        decision = decoder.send(log_softmax(np.eye(len(choice.options))[choice.gold] * 50))
    last = example.choices[-1]
    with pytest.raises(StopIteration):
        decoder.send(log_softmax(np.eye(len(last.options))[last.gold] * 50))
    found = [(claim.type, claim.start, claim.end) for claim in work.claims]
    assert found == [(e.type, e.start, e.end) for e in row.entities]


def test_rows_are_read_plain_too_and_their_context_reaches_the_template(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    lines = [
        {"text": "Cotton socks", "language": "en", "label": "complement", "context": {"query": "shoes"}},
        {"text": "Schuhe, Größe 43", "language": "de", "label": "exact"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with_query, without = read_rows(path)
    assert with_query == Row("Cotton socks", "en", "complement", context={"query": "shoes"})
    assert without == Row("Schuhe, Größe 43", "de", "exact")
    assert request_of(with_query, "shop/fit").fields == {"query": "shoes"}
    assert request_of(without, "shop/fit").fields is None


@pytest.mark.parametrize("context", ["shoes", ["shoes"], None, {"query": 5}, {"query": None}])
def test_a_context_that_is_no_object_of_strings_is_refused(tmp_path: Path, context: object) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"text": "Socks", "label": "exact", "context": context}), encoding="utf-8")
    with pytest.raises(RequestError, match=r"bad\.jsonl, line 1: context: must be"):
        read_rows(path)


ROW = '{"text": "Socks", "label": "exact"}'


def test_a_mark_at_the_files_begin_and_blank_lines_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\ufeff{ROW}\n\n{ROW}\n  \n", encoding="utf-8")
    assert read_rows(path) == [Row("Socks", "en", "exact")] * 2


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "Expecting"),
        ("[]", "a row must be an object"),
        ('{"label": "exact"}', "there is no 'text'"),
        ('{"text": "Socks"}', "there is no 'label'"),
        ('{"text": "", "label": "exact"}', "text: "),
        ('{"text": "\\ud800", "label": "exact"}', "text: "),
        ('{"text": "Socks", "language": "English (US)", "label": "exact"}', "language: "),
        ('{"text": "Socks", "entities": "Socks"}', "entities: must be a list"),
        ('{"text": "Socks", "entities": ["Socks"]}', "entities: must be a list"),
        ('{"text": "Socks", "entities": [{"start": 0, "end": 5, "value": "Socks"}]}', "type: "),
    ],
)
def test_a_row_that_cannot_be_asked_is_told_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{ROW}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(RequestError, match=rf"bad\.jsonl, line 3: {re.escape(told)}"):
        read_rows(path)


def test_rows_that_leave_no_choice_teach_nothing(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/pii")
    with_names = fixtures.entity_row()
    assert len(examples_of(expert, [Row("?!", "en"), with_names])) == 1
    with pytest.raises(RequestError, match="nothing to train on"):
        examples_of(expert, [Row("?!", "en")])
    with pytest.raises(RequestError, match="nothing to train on"):
        examples_of(expert, [])


def test_an_entity_that_is_not_at_its_place_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    rows = [
        {
            "text": "Ann Lee",
            "entities": [{"type": "PERSON", "start": start, "end": start + 3, "value": "Lee"}],
        }
        for start in (4, 3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(RequestError, match="line 2: the text from 3 to 6 is not the PERSON's value"):
        read_rows(path)


def test_long_examples_are_counted_and_some_must_be_left(
    gemma_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expert = fixtures.expert(gemma_folder, "bank/intent")
    short, long = Row("a", "en", "card_arrival"), Row("where is it " * 20, "en", "card_arrival")
    [example] = examples_of(expert, [short])
    monkeypatch.setattr(examples, "MAX_TOKENS", len(example.tokens))
    assert examples_of(expert, [short, long]) == [example]
    assert "1 of 2 examples" in caplog.text
    with pytest.raises(RequestError, match="All 1 examples"):
        examples_of(expert, [long])


def test_rows_are_read_and_a_broken_file_is_named(tmp_path: Path) -> None:
    fixtures.write(tmp_path, [fixtures.entity_row()], fixtures.rows(2))
    assert read_rows(tmp_path / "train.jsonl.gz") == [fixtures.entity_row()]
    assert read_rows(tmp_path / "validation.jsonl.gz") == fixtures.rows(2)
    whole = (tmp_path / "validation.jsonl.gz").read_bytes()
    damaged = whole[:30] + bytes(b ^ 0xFF for b in whole[30:])
    for spoilt in (b"not gzip", damaged, whole[:30]):
        (tmp_path / "bad.jsonl.gz").write_bytes(spoilt)
        with pytest.raises(RequestError, match=r"bad\.jsonl\.gz"):
            read_rows(tmp_path / "bad.jsonl.gz")


def test_the_rows_that_choose_are_not_those_reported_on() -> None:
    rows = fixtures.rows(9)
    choosing, reported = halves(rows)
    assert len(choosing) + len(reported) == 9
    assert not set(choosing) & set(reported)
    assert (choosing, reported) == halves(rows)

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from moe_router.errors import RequestError
from moe_router.experts import expert_file
from moe_router.experts.engines.base import Prompt
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.engines.transformers import TransformersEngine
from moe_router.experts.extraction import Claim
from moe_router.experts.prompting import Template
from moe_router.experts.scoring import tempered
from moe_router.experts.task_expert import Finding
from moe_router.gating.encoder import Encoder
from moe_router.registry import Registry
from moe_router.training.experts.evaluate import Evaluation, evaluate_expert, within
from moe_router.training.experts.examples import Row, halves
from moe_router.training.experts.judge import (
    Answers,
    ask,
    entity_figures,
    entity_temperatures,
    probability_figures,
)
from moe_router.training.experts.lora import ADAPTER, LoraModel, LoraShape
from moe_router.training.experts.report import table
from tests.unit.moe_router.experts import tiny
from tests.unit.moe_router.training import expert_fixtures as fixtures


def _quiet(message: str, share: float) -> None:
    """Nobody listens."""


def test_an_adapter_is_judged_beside_the_base_model(tmp_path: Path, gemma_folder: Path) -> None:
    adapter = tiny.save_adapter(tmp_path / "adapter", gemma_folder)
    described = {"labels": fixtures.LABELS, "template": fixtures.TEMPLATE, "temperature": 2.0}
    (adapter / expert_file.NAME).write_text(json.dumps(described), encoding="utf-8")
    rows = fixtures.rows(12)
    data = fixtures.write(tmp_path / "data", rows, rows)
    given = Evaluation("bank/intent", data, "tiny", adapter, tmp_path, tmp_path)
    found = evaluate_expert(given, fixtures.registry(gemma_folder), None, _quiet)
    assert set(found) == {"adapter", "zero-shot"}
    assert found["adapter"]["texts"] == len(halves(rows)[1])
    assert found["adapter"]["ece"] != found["zero-shot"]["ece"]
    shown = table(found)
    assert "| accuracy |" in shown
    assert "| de |" in shown


@pytest.mark.parametrize("given", [True, False], ids=["another adapter", "the registry's"])
def test_the_registrys_adapter_is_judged_with_the_prompt_that_is_served(
    given: bool,
    tmp_path: Path,
    gemma_folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = tiny.save_adapter(tmp_path / "adapter", gemma_folder)
    described = {"labels": fixtures.LABELS, "template": "Trained on: {{input}}"}
    (adapter / expert_file.NAME).write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "template.json").write_text(json.dumps({"default": "Served: {{input}}"}), encoding="utf-8")
    declared = fixtures.registry(gemma_folder).model_dump(exclude_defaults=True)
    declared["tasks"]["bank/intent"] |= {
        "template_path": "template.json",
        "adapter_path": "elsewhere" if given else "adapter",
        "adapter_name": "a",
    }
    heads: list[tuple[str, str | None]] = []
    prompt = HfTokens.prompt

    def noted(self: HfTokens, template: Template, values: Any, adapter: str | None, answer: int) -> Prompt:
        heads.append((template.head, adapter))
        return prompt(self, template, values, adapter, answer)

    monkeypatch.setattr(HfTokens, "prompt", noted)
    data = fixtures.write(tmp_path / "data", [], fixtures.rows(3)) / "validation.jsonl.gz"
    asked = Evaluation(
        "bank/intent", data, "tiny", adapter if given else None, tmp_path, tmp_path, baselines=False
    )
    evaluate_expert(asked, Registry.model_validate(declared), None, _quiet)
    assert {head for head, _ in heads} == {"Trained on:" if given else "Served:"}
    assert f"{tmp_path / 'template.json'} holds another" in caplog.text


def test_a_few_shot_prompt_without_room_for_a_text_is_left_out(
    tmp_path: Path, gemma_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(gemma_folder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}), encoding="utf-8")
    adapter = tiny.save_adapter(tmp_path / "adapter", base)
    described = {"labels": fixtures.LABELS, "template": fixtures.TEMPLATE}
    (adapter / expert_file.NAME).write_text(json.dumps(described), encoding="utf-8")
    prompts = {"default": "An example. " * 256 + "{{input}}", "tiny": fixtures.TEMPLATE}
    (tmp_path / "template.json").write_text(json.dumps(prompts), encoding="utf-8")
    declared = fixtures.registry(base).model_dump(exclude_defaults=True)
    declared["tasks"]["bank/intent"]["template_path"] = "template.json"
    data = fixtures.write(tmp_path / "data", [], fixtures.rows(3)) / "validation.jsonl.gz"
    given = Evaluation("bank/intent", data, "tiny", adapter, tmp_path, tmp_path)
    found = evaluate_expert(given, Registry.model_validate(declared), None, _quiet)
    assert set(found) == {"adapter", "zero-shot"}
    assert "few-shot is left out: the task's template leaves no" in caplog.text


def test_a_file_is_used_as_a_whole(tmp_path: Path, gemma_folder: Path) -> None:
    row = fixtures.entity_row()
    data = fixtures.write(tmp_path, [row] * 3, [row])
    given = Evaluation("bank/pii", data / "train.jsonl.gz", "tiny", None, tmp_path, tmp_path)
    found = evaluate_expert(given, fixtures.registry(gemma_folder), None, _quiet)
    assert found["zero-shot"]["texts"] == 3
    assert found["zero-shot"]["entities"] == 6


def test_a_base_model_without_an_expert_of_the_task_is_told(tmp_path: Path, gemma_folder: Path) -> None:
    given = Evaluation("bank/intent", tmp_path, "other", None, tmp_path, tmp_path)
    with pytest.raises(RequestError, match="no expert on the base model 'other'"):
        evaluate_expert(given, fixtures.registry(gemma_folder), None, _quiet)


def test_there_is_no_linear_head_where_nothing_could_be_fitted(tmp_path: Path, gemma_folder: Path) -> None:
    data = fixtures.write(tmp_path, [], fixtures.rows(3)) / "validation.jsonl.gz"
    given = Evaluation("bank/intent", data, "tiny", None, tmp_path, tmp_path)
    never_asked = cast(Encoder, object())
    assert set(evaluate_expert(given, fixtures.registry(gemma_folder), never_asked, _quiet)) == {"zero-shot"}


def test_a_linear_head_that_cannot_be_had_costs_no_other_figure(
    tmp_path: Path, gemma_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alike = [replace(row, label=fixtures.LABELS[0]) for row in fixtures.rows(12)]
    data = fixtures.write(tmp_path / "data", alike, alike)
    given = Evaluation("bank/intent", data, "tiny", None, tmp_path, tmp_path)
    never_asked = cast(Encoder, object())  # texts of one label alone are told first
    assert set(evaluate_expert(given, fixtures.registry(gemma_folder), never_asked, _quiet)) == {"zero-shot"}
    assert "the linear head is left out" in caplog.text


@pytest.mark.parametrize("whole", [True, False], ids=["a file", "a folder"])
def test_data_without_rows_are_told(tmp_path: Path, gemma_folder: Path, whole: bool) -> None:
    data = fixtures.write(tmp_path / "data", fixtures.rows(9), [])
    path = data / "validation.jsonl.gz" if whole else data
    given = Evaluation("bank/intent", path, "tiny", None, tmp_path, tmp_path)
    with pytest.raises(RequestError, match="has no rows to judge on"):
        evaluate_expert(given, fixtures.registry(gemma_folder), None, _quiet)


def test_progress_is_a_share_also_of_long_texts(gemma_folder: Path) -> None:
    expert = fixtures.expert(gemma_folder, "bank/pii")
    shares: list[float] = []
    rows = [Row("Ann met Bob. " * 200, "en"), fixtures.entity_row()]
    model = LoraModel(AutoModelForCausalLM.from_pretrained(gemma_folder), LoraShape(rank=2)).model.eval()
    engine = TransformersEngine(
        model, HfTokens(AutoTokenizer.from_pretrained(gemma_folder), 64), loaded=(ADAPTER,)
    )
    ask(expert, engine, rows, lambda message, share: shares.append(share))
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] == 1


def test_a_prompt_without_a_place_for_the_context_has_it_in_the_text() -> None:
    row = Row("Cotton socks", "en", "complement", context={"query": "shoes"})
    assert within(row) == Row("query: shoes\nCotton socks", "en", "complement")
    assert within(fixtures.rows(1)[0]) == fixtures.rows(1)[0]


def answered(row: Row, span: float, kind: float, *, right: bool) -> tuple[Finding, list[Claim]]:
    """An answer with one entity, and the claim that it stands on."""
    entity = row.entities[0] if right else row.entities[0].model_copy(update={"type": "EMAIL"})
    claim = Claim(entity.type, entity.start, entity.end, math.log(span), math.log(kind))
    return Finding("entities", 1.0, None, [entity], ""), [claim]


def test_temperatures_make_entities_as_sure_as_they_are_right() -> None:
    row = fixtures.entity_row()
    answers = [answered(row, 0.999999, 0.99, right=k < 8) for k in range(10)]
    answers += [answered(row, 0.6, 0.999999, right=k < 9) for k in range(10)]
    findings, claims = map(list, zip(*answers, strict=True))
    temperatures = entity_temperatures(Answers(findings, [], claims), [row] * 20)
    sure = tempered(np.log([[0.999999, 0.99], [0.6, 0.999999]]), np.array(temperatures)).prod(axis=1)
    assert sure == pytest.approx([0.8, 0.9], abs=0.01)


def test_where_all_are_sure_and_some_wrong_temperatures_tell() -> None:
    row = fixtures.entity_row()
    answers = [answered(row, 1 - 1e-9, 1 - 1e-9, right=k < 8) for k in range(10)]
    findings, claims = map(list, zip(*answers, strict=True))
    temperatures = entity_temperatures(Answers(findings, [], claims), [row] * 10)
    sure = tempered(np.full(2, math.log1p(-1e-9)), np.array(temperatures)).prod()
    assert sure == pytest.approx(0.8, abs=0.08)  # the bounds leave no more


def test_claims_that_were_not_answered_with_fit_no_temperature() -> None:
    row = fixtures.entity_row()
    _, claims = answered(row, 0.9, 0.8, right=True)
    none = Finding("entities", 1.0, None, [], "")
    assert entity_temperatures(Answers([none], [], [claims]), [row]) == (1.0, 1.0)


def test_figures_count_what_is_right() -> None:
    rows = fixtures.rows(4)
    sure = [{label: float(label == row.label) for label in fixtures.LABELS} for row in rows]
    assert probability_figures(sure, rows)["accuracy"] == 1.0
    assert probability_figures(sure, rows)["ece"] == 0.0
    row = fixtures.entity_row()
    half = entity_figures([row.entities[:1]], [row])
    assert (half["precision"], half["recall"]) == (1.0, 0.5)
    assert half["span_f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert entity_figures([[]], [row])["span_f1"] == 0.0

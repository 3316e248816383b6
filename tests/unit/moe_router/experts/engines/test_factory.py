from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from moe_router.contracts import ExpertRequest
from moe_router.errors import TextTooLongError
from moe_router.experts.engines import transformers
from moe_router.experts.engines.base import Engine
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.engines.loading import context_length
from moe_router.experts.engines.packed import PackedSession, Slots
from moe_router.experts.scoring import Floats
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import BaseModelSpec, Expert, TaskSpec
from tests.unit.moe_router.experts import tiny

CONTEXT = 128
LONG = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [4.0]}
ORIGINAL = "original_max_position_embeddings"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Of a model that has a learned weight for each position, and none for one beyond."""
    folder: Path = tmp_path_factory.mktemp("gpt2")
    own = tiny.tokenizer()
    shape = GPT2Config(
        vocab_size=len(own), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    GPT2LMHeadModel(shape).save_pretrained(folder)
    own.save_pretrained(folder)
    return make_engine(BaseModelSpec(hf_name=str(folder)), EngineOptions(folder))


def made(engine: Engine, kind: str) -> TaskExpert:
    told = {"base_model_key": "g", "label_set": ["PERSON", "EMAIL"], "kind": kind, "description": "Who?"}
    declared = Expert("x", "a/b", "g", None, None, None, None, 1.0)
    expert = TaskExpert(declared, TaskSpec.model_validate(told), None, engine.tokens, None)
    expert.warmed_up(engine.infer(expert.warm_up_jobs()))
    return expert


@pytest.mark.parametrize("kind", ["classification", "extraction"])
def test_a_text_longer_than_what_the_model_reads_at_once_is_answered(engine: Engine, kind: str) -> None:
    expert = made(engine, kind)
    work = expert.prepare(ExpertRequest(task_key="a/b", text="Anna payment declined " * 200, language="en"))
    assert all(len(job.prompt.head) + len(job.prompt.tail) <= CONTEXT for job in work.jobs)
    found = expert.finish(work, engine.infer(work.jobs))
    if kind == "extraction":
        assert len(work.jobs) > 1
        assert found.entities is not None
    else:
        assert work.jobs[0].prompt.input_cut
        assert found.result in ("PERSON", "EMAIL")


def test_an_extraction_ends_where_the_model_reads_no_further(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = made(engine, "extraction")
    text = " ".join(f"{'qzxj' * 3}{at}" for at in range(6))
    work = expert.prepare(ExpertRequest(task_key="a/b", text=text, language="en"))
    ends: list[int] = []
    add = PackedSession.add

    def noting(
        self: PackedSession, tokens: Sequence[int], context: Slots, start: int, *others: Any, **named: Any
    ) -> Slots:
        ends.append(start + len(tokens))
        return add(self, tokens, context, start, *others, **named)

    def first_choice(scores: Floats) -> Floats:
        return np.linspace(-1, -2, len(scores))

    monkeypatch.setattr(PackedSession, "add", noting)
    monkeypatch.setattr(transformers, "log_softmax", first_choice)  # which names word after word
    found = expert.finish(work, engine.infer(work.jobs))
    assert CONTEXT - 48 < max(ends) <= CONTEXT
    assert found.confidence < 1e-6  # the list's end was not the model's


def test_optional_parts_of_a_template_that_fill_the_context_are_told(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps({"default": "{{#note}}" + "Words. " * 60 + "{{note}}{{/note}}{{input}}\n:"}))
    task = TaskSpec.model_validate({"base_model_key": "g", "label_set": ["a", "b"]})
    declared = Expert("x", "a/b", "g", None, None, None, None, 1.0)
    expert = TaskExpert(declared, task, path, engine.tokens, None)
    expert.warmed_up(engine.infer(expert.warm_up_jobs()))
    with pytest.raises(TextTooLongError, match="than what its model reads"):
        expert.prepare(ExpertRequest(task_key="a/b", text="Anna", language="en", fields={"note": "x"}))


@pytest.mark.parametrize(
    ("told", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 4096),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 4096),
        ({"max_position_embeddings": 131072, "rope_parameters": LONG, ORIGINAL: 4096}, 4096),
        ({"max_position_embeddings": 131072, "rope_parameters": LONG | {ORIGINAL: 8192}}, 8192),
        ({"max_position_embeddings": -1}, None),
        ({}, None),
    ],
)
def test_the_context_is_what_the_configuration_tells(told: dict[str, Any], context: int | None) -> None:
    config = SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(**told))
    assert context_length(SimpleNamespace(config=config)) == context

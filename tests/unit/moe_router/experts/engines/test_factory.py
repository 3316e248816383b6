from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from moe_router.contracts import ExpertRequest
from moe_router.experts.engines.base import Engine
from moe_router.experts.engines.factory import EngineOptions, make_engine
from moe_router.experts.task_expert import TaskExpert
from moe_router.registry import BaseModelSpec, Expert, TaskSpec
from tests.unit.moe_router.experts import tiny

CONTEXT = 128


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


@pytest.mark.parametrize("kind", ["classification", "extraction"])
def test_a_text_longer_than_what_the_model_reads_at_once_is_answered(engine: Engine, kind: str) -> None:
    told = {"base_model_key": "g", "label_set": ["PERSON", "EMAIL"], "kind": kind, "description": "Who?"}
    declared = Expert("x", "a/b", "g", None, None, None, None, 1.0)
    expert = TaskExpert(declared, TaskSpec.model_validate(told), None, engine.tokens, None)
    expert.warmed_up(engine.infer(expert.warm_up_jobs()))
    work = expert.prepare(ExpertRequest(task_key="a/b", text="Anna payment declined " * 200, language="en"))
    assert all(len(job.prompt.head) + len(job.prompt.tail) <= CONTEXT for job in work.jobs)
    found = expert.finish(work, engine.infer(work.jobs))
    if kind == "extraction":  # in windows, none of which is cut
        assert len(work.jobs) > 1
        assert not any(job.prompt.cut for job in work.jobs)
        assert found.entities is not None
    else:
        assert work.jobs[0].prompt.input_cut
        assert found.result in ("PERSON", "EMAIL")

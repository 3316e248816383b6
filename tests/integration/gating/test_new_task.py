"""A task that no head was fitted on is served once the registry has a sentence of description of it.

The encoder's adapter has seen its requests; to make one without them takes hours (benchmarks/new_task.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from moe_router.gating.pipeline import MODELS
from moe_router.training.build import fit
from moe_router.training.embedded import Embedded
from moe_router.training.evaluate import judge
from moe_router.training.feedback.remembered import RememberingEncoder
from moe_router.training.gating import Part
from moe_router.training.newcomer import Reach, lacking, serving, told
from moe_router.training.phrasings import Split, load_phrasings
from moe_router.training.requests import Composer, Request, load_texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # encodes some thousand texts first

EVERY = 4
"""One in so many of the requests for training suffices here; benchmarks/new_task.py takes all of them."""
OTHERS = 8
"""So much of the requests for the other tasks tells whether they keep theirs."""
TASKS = (
    "finance/intent_detection", "finance/news_classification", "finance/pii_detection",
    "finance/sentiment_analysis", "general/topic_classification", "retail/product_relevance",
    "retail/review_rating", "social/hate_speech", "social/sentiment_analysis",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(loaded, tmp_path_factory) -> RememberingEncoder:
    """Encodes once for all tasks."""
    return RememberingEncoder(loaded.encoder.encoder, tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    composer = Composer(load_texts(None, "validation", 0, 0), "validation", 2)
    return [request for request in composer.epoch(0) if request.kind != "generic"]


def part(split: Split, task: str, every: int, embed: Embedded) -> Part:
    """Requests and own texts of all but one task."""
    asked = [p for p in [p for p in load_phrasings() if p.split == split][::every] if p.target != task]
    texts = [t for t in load_texts(None, split, 0, 0) if t.task != task]
    return Part(asked, embed([p.text for p in asked]), texts, embed([t.text for t in texts]))


def fit_without(task: str, loaded, encoder: RememberingEncoder, folder: Path) -> None:
    """The shipped weights, but heads and wording that have never seen the task, nor had it on offer."""
    embed = Embedded(encoder, lambda *_: None)
    train, validation = part("train", task, EVERY, embed), part("validation", task, 1, embed)
    held = Composer(validation.texts, "validation", 1, frozenset({task})).epoch(300)
    meta = {"encoder": encoder.identity, "hidden": encoder.hidden, "seed": 0}
    fitted = fit(train, validation, held, lacking(loaded.registry, {task}), meta, embed, lambda *_: None)
    assert task not in {*fitted.tasks.meta["classes"], *fitted.words.meta["classes"]}
    shutil.copytree(MODELS, folder)
    fitted.save(folder)


@pytest.mark.parametrize("task", TASKS)
async def test_a_task_left_out_of_training_is_served_once_it_is_described(
    loaded, encoder, requests, task, tmp_path
):
    folder = tmp_path / "models"
    fit_without(task, loaded, encoder, folder)
    pipeline = await serving(folder, told(loaded.registry, {task}), loaded, encoder)
    asked = [r for r in requests if r.target == task]
    others = [r for r in requests if r.target in set(TASKS) - {task}][::OTHERS]
    found, rest = [Reach.of([await judge(pipeline, request) for request in part]) for part in (asked, others)]
    await pipeline.aclose()
    assert found.reached >= 0.85, found
    assert rest.reached >= 0.85, rest  # the others keep theirs

"""A task that no head was fitted on is reached by its sentence of description alone."""

from __future__ import annotations

import numpy as np
import pytest

from moe_router.gating.heads import MixtureHead
from moe_router.training.embedded import Embedded
from moe_router.training.gating import Part, fit_head
from moe_router.training.phrasings import GENERIC, load_phrasings
from moe_router.training.requests import load_texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # encodes some thousand texts first

EVERY = 8
"""So much of the requests suffices here; benchmarks/new_task.py takes all of them."""
TASKS = (
    "finance/intent_detection", "finance/news_classification", "finance/pii_detection",
    "finance/sentiment_analysis", "general/topic_classification", "retail/product_relevance",
    "retail/review_rating", "social/hate_speech", "social/sentiment_analysis",
)  # fmt: skip


@pytest.fixture(scope="module")
def parts(loaded):
    """Requests and own texts of both splits, encoded once for all tasks."""
    embed = Embedded(loaded.encoder.encoder, lambda *_: None)
    phrasings = load_phrasings()
    found = []
    for split in ("train", "validation"):
        asked = [p for p in phrasings if p.split == split][::EVERY]
        texts = load_texts(None, split, 0, 0)
        found.append(Part(asked, embed([p.text for p in asked]), texts, embed([t.text for t in texts])))
    return embed, *found


def without(part: Part, task: str) -> Part:
    asked = np.array([p.target != task for p in part.phrasings])
    texts = np.array([t.task != task for t in part.texts])
    return Part(
        [p for p, kept in zip(part.phrasings, asked, strict=True) if kept], part.phrasing_vectors[asked],
        [t for t, kept in zip(part.texts, texts, strict=True) if kept], part.text_vectors[texts],
    )  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_task_left_out_of_training_is_reached_once_it_is_described(loaded, parts, task):
    embed, train, validation = parts
    meta = {"encoder": "x", "hidden": embed.hidden}
    tasks = fit_head(without(train, task), without(validation, task), lambda key: key, meta)
    assert task not in tasks.meta["classes"]
    told = {
        key: embed([phrase for phrase in (own.description, *(own.examples if key != task else ())) if phrase])
        for key, own in loaded.registry.tasks.items()
    }
    head = MixtureHead(tasks, tuple(loaded.registry.tasks), told)
    right: dict[bool, list[bool]] = {True: [], False: []}
    for phrasing, vector in zip(validation.phrasings, validation.phrasing_vectors, strict=True):
        if phrasing.target in loaded.registry.tasks and not phrasing.target.startswith(GENERIC):
            found = head(vector, None)
            best = found.names[int(found.probabilities.argmax())]
            right[phrasing.target == task].append(best == phrasing.target)
    assert np.mean(right[True]) >= 0.85
    assert np.mean(right[False]) >= 0.85  # the others keep theirs

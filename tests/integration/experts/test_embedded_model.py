"""The experts of the demo on the real embedded model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import moe_router
from moe_router.assets.cache import DEFAULT_CACHE
from moe_router.contracts import ExpertAnswer, ExpertRequest
from moe_router.experts.pool import PoolConfig, SingleModelPool
from moe_router.registry import load_registry

ROOT = Path(__file__).parents[3]
TEXTS = {
    "finance/sentiment_analysis": "Der Gewinn der Bank brach im dritten Quartal um 40 Prozent ein.",
    "finance/news_classification": "The tax authority published new rules for the depreciation of buildings.",
    "finance/intent_detection": "I lost my card yesterday, what should I do?",
    "finance/pii_detection": "Write to maria.lopez@example.com or call Maria Lopez on 020 7946 0958.",
    "retail/review_rating": "Absolutely fantastic, the best purchase of the year!",
    "retail/product_relevance": "Bluetooth headphones with noise cancelling",
    "social/sentiment_analysis": "J'adore ce festival !",
    "social/hate_speech": "I hope you all have a great day.",
    "general/topic_classification": "El volcán está en el norte de la isla.",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool() -> Iterator[SingleModelPool]:
    cache = Path(os.environ.get("MOLE_CACHE_DIR", DEFAULT_CACHE)).expanduser()
    adapters = Path(moe_router.__file__).parent / "experts" / "llms" / "adapters"
    registry = load_registry(ROOT / "config" / "demo" / "experts_registry.json")
    config = PoolConfig(adapter_root=adapters, cache_dir=cache, worker_id="worker-0")
    made = SingleModelPool(registry, "gemma-3-270m", config)
    made.preload(None)
    made.warm_up()
    yield made
    asyncio.run(made.aclose())


def ask(pool: SingleModelPool, task_keys: list[str]) -> list[ExpertAnswer]:
    async def all_at_once() -> list[ExpertAnswer]:
        return await asyncio.gather(
            *(
                pool.classify(
                    pool.find(key, "en"),
                    ExpertRequest(
                        task_key=key,
                        text=TEXTS[key],
                        language="en",
                        fields={"query": "wireless headphones"},
                        return_probabilities=True,
                    ),
                )
                for key in task_keys
            )
        )

    return asyncio.run(all_at_once())


def test_every_task_answers_from_its_own_label_set(pool: SingleModelPool) -> None:
    assert pool.failures() == {}
    registry = load_registry(ROOT / "config" / "demo" / "experts_registry.json")
    assert set(TEXTS) == set(registry.tasks)
    for key, answer in zip(TEXTS, ask(pool, list(TEXTS)), strict=True):
        if key == "finance/pii_detection":
            continue
        assert answer.result in registry.task(key).label_set
        assert answer.probabilities is not None
        assert list(answer.probabilities) == list(registry.task(key).label_set)
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)


def test_entities_are_where_they_say(pool: SingleModelPool) -> None:
    [answer] = ask(pool, ["finance/pii_detection"])
    text = TEXTS["finance/pii_detection"]
    assert answer.entities
    assert ("EMAIL", "maria.lopez@example.com") in [(e.type, e.value) for e in answer.entities]
    for entity in answer.entities:
        assert text[entity.start : entity.end] == entity.value


def test_the_real_model_answers_the_same_alone_and_in_a_mixed_batch(pool: SingleModelPool) -> None:
    keys = [key for key in TEXTS if key != "finance/pii_detection"]
    for key, together in zip(keys, ask(pool, keys), strict=True):
        [alone] = ask(pool, [key])
        assert alone.result == together.result
        assert alone.probabilities == pytest.approx(together.probabilities, abs=1e-3)

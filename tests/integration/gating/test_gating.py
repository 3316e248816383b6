"""The shipped weights on the real encoder."""

from __future__ import annotations

import asyncio

import pytest

from moe_router.training.evaluate import evaluate_gating, evaluate_language
from moe_router.training.phrasings import OUT_OF_SCOPE, load_phrasings

pytestmark = pytest.mark.slow


def served(_model_key: str) -> bool:
    return True


def requests(count: int) -> list[tuple[str, str]]:
    chosen = [p for p in load_phrasings() if p.split == "validation" and not p.target.startswith("generic/")]
    return [(p.text, p.target) for p in chosen[:: max(1, len(chosen) // count)][:count]]


async def test_requests_of_unseen_families_find_their_task(pipeline):
    # A floor that catches broken weights; the figures themselves are in benchmarks/results.
    right = total = 0
    for description, target in requests(200):
        if target.startswith(OUT_OF_SCOPE):
            continue
        decision = await pipeline.decide("…", description, language="en", served=served)
        found = max(decision.task_probabilities, key=decision.task_probabilities.__getitem__)
        right, total = right + (found == target), total + 1
    assert right / total > 0.85


@pytest.mark.timeout(900)  # some thousand decisions
async def test_the_figures_can_be_summed_up_without_the_datasets(pipeline):
    result = await evaluate_gating(pipeline, None, lambda _m, _f: None, rounds=1)
    assert result["out_of_scope_auroc"] > 0.9
    assert result["ece"] < 0.1


async def test_decisions_are_the_same_alone_and_under_load(pipeline):
    asked = requests(24)
    alone = [await pipeline.decide(f"text {i}", d, served=served) for i, (d, _) in enumerate(asked)]
    crowd = await asyncio.gather(
        *(pipeline.decide(f"text {i}", d, served=served) for i, (d, _) in enumerate(asked))
    )
    for one, other in zip(alone, crowd, strict=True):
        assert one.task == other.task
        assert one.confidence == pytest.approx(other.confidence, abs=2e-3)


async def test_the_event_loop_is_not_held_up_by_a_pass(pipeline):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await pipeline.decide("Ein langer Satz über den Handel. " * 60, None, served=served)
    ticking.cancel()
    assert ticks > 50  # a pass on the loop would have let it turn a handful of times


@pytest.mark.parametrize(
    ("text", "description", "task"),
    [
        (
            "Der Umsatz stieg um zwölf Prozent.",
            "Is this good or bad news for investors?",
            "finance/sentiment_analysis",
        ),
        ("أحب هذا المنتج كثيرا", "كم نجمة يستحق هذا التقييم؟", "retail/review_rating"),
        ("I lost my card", "¿Qué quiere el cliente del banco?", "finance/intent_detection"),
        ("快递三天就到了，质量很好", "Is this hate speech?", "social/hate_speech"),
    ],
)
async def test_what_is_asked_decides_and_not_the_surface(pipeline, text, description, task):
    decision = await pipeline.decide(text, description, served=served)
    assert decision.task == task


async def test_the_language_is_that_of_the_text(pipeline):
    decision = await pipeline.decide(
        "Nous avons gagné le match hier soir.", "What is this about?", served=served
    )
    assert decision.language == "fr"


def test_languages_are_told_apart(loaded, data):
    result = evaluate_language(loaded.language, data)
    assert result["sentences"]["accuracy"] >= 0.99
    assert result["five_words"]["accuracy"] >= 0.95

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.loading import load_model
from moe_router.experts.engines.tokens import HfTokens
from moe_router.experts.expert_file import ExpertFile
from moe_router.experts.extraction import Claim, Found
from moe_router.experts.task_expert import TaskExpert, Work, spoken
from moe_router.registry import BaseModelSpec, Expert, TaskSpec

INTENTS = ("card_lost", "card_payment_declined", "fee")


@pytest.fixture(scope="module")
def tokens(llama_folder: Path) -> HfTokens:
    return HfTokens(
        load_model(llama_folder, BaseModelSpec(hf_name=str(llama_folder)))[1], max_text_tokens=200
    )


def expert(
    tokens: HfTokens,
    template: Path | None = None,
    adapter: str | None = None,
    trained: ExpertFile | None = None,
    kind: str = "classification",
    description: str = "The intent",
) -> TaskExpert:
    told = {"base_model_key": "l", "label_set": list(INTENTS), "kind": kind, "description": description}
    task = TaskSpec.model_validate(told)
    declared = Expert("x", "a/b", "l", adapter, None, None, None, 1.0)
    return TaskExpert(declared, task, template, tokens, adapter, trained=trained)


def written(tokens: HfTokens, *words: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tokens.encode(f" {word}", trusted=False) for word in words)


def test_a_base_model_is_asked_for_words_and_answers_with_labels(tokens: HfTokens, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"default": "One of {{labels}}. Text: {{input}}\\nIntent:"}', encoding="utf-8")
    found = expert(tokens, path)
    assert found._trie.sequences == written(tokens, "card lost", "card payment declined", "fee")
    assert found._template.head == "One of card lost, card payment declined, fee. Text:"
    assert found.labels == INTENTS
    by_description = expert(tokens)
    assert "card lost, card payment declined, fee" in by_description._template.head


def test_a_template_that_spells_a_label_out_is_taken_at_its_word(tokens: HfTokens, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(
        '{"default": "Text: x\\nIntent: card_lost\\nText: {{input}}\\nIntent:"}', encoding="utf-8"
    )
    assert expert(tokens, path)._trie.sequences == written(tokens, *INTENTS)


def test_a_description_that_spells_a_label_out_is_taken_at_its_word(tokens: HfTokens) -> None:
    said = expert(tokens, description="Say card_lost where a card is gone.")
    assert said._trie.sequences == written(tokens, *INTENTS)
    assert "card_lost, card_payment_declined, fee" in said._template.head


def test_an_extraction_names_its_types_as_it_writes_them(tokens: HfTokens) -> None:
    assert "card_lost, card_payment_declined, fee" in expert(tokens, kind="extraction")._template.head


def test_an_adapter_hears_what_it_was_trained_on(tokens: HfTokens) -> None:
    assert expert(tokens, adapter="made-elsewhere")._trie.sequences == written(tokens, *INTENTS)
    of_labels = ExpertFile(labels=INTENTS, template="{{input}}\nIntent:")
    assert expert(tokens, adapter="a", trained=of_labels)._trie.sequences == written(tokens, *INTENTS)
    of_words = ExpertFile(labels=INTENTS, template="{{labels}} {{input}}\nIntent:", words=("a", "b", "c"))
    found = expert(tokens, adapter="a", trained=of_words)
    assert found._trie.sequences == written(tokens, "a", "b", "c")
    assert found._template.head.startswith("card_lost, card_payment_declined, fee")


def extracted(tokens: HfTokens, span: float | None, kind: float, *told: Found) -> tuple[list[float], float]:
    """The confidence of each entity and of the whole, by the two temperatures."""
    trained = ExpertFile(labels=INTENTS, template="{{input}}\n", temperature=kind, span_temperature=span)
    work = Work((), "x" * 9, (), told)
    finding = expert(tokens, adapter="a", trained=trained, kind="extraction").finish(work, ())
    return [entity.confidence for entity in finding.entities or []], finding.confidence


def claimed(start: int, span: float, kind: float) -> Claim:
    with np.errstate(divide="ignore"):
        return Claim("fee", start, start + 1, float(np.log(span)), float(np.log(kind)))


def test_odds_of_spans_and_types_are_divided_by_their_temperatures(tokens: HfTokens) -> None:
    first = Found([claimed(0, 0.8, 0.9), claimed(3, 0.5, 0.7)], math.log(0.6))
    second = Found([claimed(5, 0.3, 0.99)], math.log(0.95))
    confidences, whole = extracted(tokens, 2.0, 4.0, first, second)
    each = expit(logit([0.8, 0.5, 0.3]) / 2) * expit(logit([0.9, 0.7, 0.99]) / 4)
    assert confidences == pytest.approx(each)
    assert whole == pytest.approx(each.prod() * expit(logit([0.6, 0.95]) / 2).prod())


def test_what_two_windows_tell_counts_once_and_what_is_overruled_not_at_all(tokens: HfTokens) -> None:
    twice = Found([claimed(0, 0.8, 1.0)], math.log(0.9)), Found([claimed(0, 0.8, 1.0)], math.log(0.7))
    confidences, whole = extracted(tokens, 1.0, 1.0, *twice)
    assert confidences == pytest.approx([0.8])
    assert whole == pytest.approx(0.8 * 0.9 * 0.7)
    beneath = Found([claimed(0, 0.8, 1.0), claimed(0, 0.3, 0.5)])
    assert extracted(tokens, 1.0, 1.0, beneath) == (pytest.approx([0.8]), pytest.approx(0.8))


@pytest.mark.parametrize("temperature", [0.01, 100.0])
def test_what_is_certain_or_impossible_stays_so(tokens: HfTokens, temperature: float) -> None:
    def all_told(probability: float) -> tuple[list[float], float]:
        return extracted(tokens, temperature, temperature, Found([claimed(0, probability, 1.0)]))

    assert all_told(1.0) == ([1.0], 1.0)
    assert all_told(0.0) == ([0.0], 0.0)
    [least], _ = all_told(5e-324)
    assert 0 <= least < 0.5


def test_a_temperature_of_before_spans_had_one_divides_nothing(tokens: HfTokens) -> None:
    confidences, whole = extracted(tokens, None, 0.75, Found([claimed(0, 0.8, 0.9)], math.log(0.6)))
    assert confidences == pytest.approx([0.8 * 0.9])
    assert whole == pytest.approx(0.8 * 0.9 * 0.6)


def test_where_nothing_was_found_that_is_what_confidence_is_of(tokens: HfTokens) -> None:
    assert extracted(tokens, 2.0, 4.0, Found([], math.log(0.8))) == ([], pytest.approx(expit(logit(0.8) / 2)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("card_arrival", "fee"), ("card arrival", "fee")),
        (("a_b", "a b"), ("a_b", "a b")),
        (("_", "__x_"), ("_", "x")),
        (("top-up", "Top  Up"), ("top-up", "Top  Up")),
    ],
)
def test_labels_are_spoken_as_words_that_tell_them_apart(
    labels: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert spoken(labels, "{{a_b}} {{ card_arrival }}") == words


@pytest.mark.parametrize("kind", ["classification", "extraction"])
def test_a_model_that_reads_fewer_tokens_than_the_template_takes_is_refused(
    tokens: HfTokens, llama_folder: Path, kind: str
) -> None:
    tokenizer = load_model(llama_folder, BaseModelSpec(hf_name=str(llama_folder)))[1]
    short = expert(HfTokens(tokenizer, max_text_tokens=200, context=24), kind=kind)
    with pytest.raises(ModelAssetError, match="of the 24 that the model reads at once"):
        short.warm_up_jobs()
    assert expert(tokens, kind=kind).warm_up_jobs()

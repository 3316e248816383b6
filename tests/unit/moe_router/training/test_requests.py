from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from moe_router.training.phrasings import GENERIC, OUT_OF_SCOPE, load_own_texts
from moe_router.training.requests import GENERIC_TARGETS, Composer, Text, load_texts

TEXTS = [
    Text(f"{task} {language} {number}", task, language)
    for task in (
        "finance/sentiment_analysis", "finance/intent_detection", "social/sentiment_analysis",
        "retail/review_rating",
    )
    for language in ("en", "de")
    for number in range(3)
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "validation"):
        folder = tmp_path / "banking77"
        folder.mkdir(exist_ok=True)
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            for language in ("en", "de"):
                for number in range(9):
                    file.write(json.dumps({"text": f"{split} {number}", "language": language}) + "\n")
    return tmp_path


def test_texts_of_datasets_are_bounded_by_language_and_kept_to_their_split(data):
    of_dataset = [t for t in load_texts(data, "train", 4, seed=0) if t.text.startswith("train ")]
    assert Counter(t.language for t in of_dataset) == {"en": 4, "de": 4}
    assert {t.task for t in of_dataset} == {"finance/intent_detection"}
    assert not any(t.text.startswith("validation ") for t in load_texts(data, "train", 99, seed=0))
    assert load_texts(data, "train", 4, seed=0) == load_texts(data, "train", 4, seed=0)
    assert load_texts(data, "train", 4, seed=0) != load_texts(data, "train", 4, seed=1)


def test_own_texts_are_there_without_data_and_in_one_split_each():
    train, validation = (load_texts(None, split, 9, seed=0) for split in ("train", "validation"))
    assert {t.text for t in train}.isdisjoint(t.text for t in validation)
    assert len(train) + len(validation) == len(load_own_texts())
    assert {t.task for t in validation} == {t.task for t in train}


class TestComposing:
    def test_an_epoch_holds_each_phrasing_once_and_what_it_asks_for(self):
        composer = Composer(TEXTS, "train", seed=0)
        epoch = composer.epoch(bare=50)
        described = [r for r in epoch if r.description is not None]
        assert [r.description.id for r in described] == [p.id for p in composer.phrasings]
        for request in described:
            asked = request.description.target
            if asked.startswith(GENERIC):
                assert request.target == GENERIC_TARGETS[asked][request.text.task]
            else:
                assert request.target == asked
            assert (request.text is None) == (request.kind == "description_only")
        assert {r.kind for r in epoch} == {
            "matching", "cross_lingual", "other_surface", "description_only", "generic", "text_only",
        }  # fmt: skip

    def test_a_bare_text_asks_for_its_own_task(self):
        composer = Composer(TEXTS, "train", seed=0)
        bare = [composer.bare() for _ in range(200)]
        assert all(r.description is None and r.target == r.text.task for r in bare)
        assert min(Counter(r.target for r in bare).values()) > 25  # four tasks, as likely each

    def test_matching_texts_are_in_the_language_of_the_description(self):
        for request in Composer(TEXTS, "train", seed=3).epoch(bare=0):
            if request.kind == "matching":
                assert request.text.language == request.description.language
                assert request.text.task == request.target
            if request.kind == "cross_lingual":
                assert request.text.language != request.description.language
                assert request.text.task == request.target

    def test_the_seed_decides(self):
        first, second, other = (Composer(TEXTS, "train", seed).epoch(20) for seed in (1, 1, 2))
        assert first == second != other

    def test_splits_do_not_mix(self):
        train, validation = (Composer(TEXTS, split, 0).phrasings for split in ("train", "validation"))
        assert {p.family for p in train}.isdisjoint(p.family for p in validation)

    def test_a_task_left_out_is_left_out_wholly(self):
        without = frozenset({"finance/intent_detection"})
        epoch = Composer(TEXTS, "train", 0, without).epoch(100)
        assert all(r.target not in without for r in epoch)
        assert all(r.text is None or r.text.task not in without for r in epoch)

    def test_an_open_request_without_a_text_to_judge_is_dropped(self):
        only = [t for t in TEXTS if t.task == "finance/intent_detection"]
        epoch = Composer(only, "train", 0).epoch(5)
        assert all(r.kind != "generic" for r in epoch)
        assert any(r.target.startswith(OUT_OF_SCOPE) for r in epoch)

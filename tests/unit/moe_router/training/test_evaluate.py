from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_router.gating.decision import Decision
from moe_router.gating.language import LanguageGuess
from moe_router.training.evaluate import COVERAGES, SHORT_WORDS, _cut, evaluate_gating, summarise
from moe_router.training.phrasings import OUT_OF_SCOPE, load_phrasings
from tests.unit.moe_router.gating.made import registry
from tests.unit.moe_router.training.decided import FEW, decision, judged


@pytest.fixture
def figures() -> dict[str, Any]:
    return summarise(FEW)


class TestSummary:
    def test_the_likeliest_task_counts_as_found_also_where_gating_abstained(self, figures):
        assert figures["accuracy"]["described"] == 0.6667
        assert figures["accuracy"]["by_task"] == {
            "finance/x": {"accuracy": 1.0, "n": 2},
            "social/y": {"accuracy": 0.0, "n": 1},
        }

    def test_a_request_that_fits_nothing_is_a_wrong_answer_where_it_is_answered(self, figures):
        assert figures["abstention"] == {"coverage": 0.6, "risk": 0.6667}
        without = summarise([one for one in FEW if one.in_scope])
        assert without["abstention"] == {"coverage": 0.6667, "risk": 0.5}

    def test_confidence_is_judged_on_all_that_is_described(self, figures):
        # One in each bin: the mean of .05, .7, .65, .85 and .05.
        assert figures["ece"] == 0.46
        assert figures["out_of_scope_auroc"] == 0.6667  # 4 of 6 pairs
        assert sum(one["share"] for one in figures["reliability"]) == pytest.approx(1.0)

    def test_domains_are_judged_on_what_some_task_serves_none_being_one_of_them(self, figures):
        assert figures["accuracy"]["domain"] == 0.3333
        assert figures["domain_ece"] == 0.4667  # the mean of .1, .6 and .7

    def test_risk_at_a_coverage_is_that_of_the_surest(self, figures):
        found = {point["coverage"]: point["risk"] for point in figures["risk_at_coverage"]}
        assert tuple(found) == COVERAGES
        assert (found[1.0], found[0.8], found[0.5]) == (0.6, 0.5, 0.5)

    def test_confusion_is_of_what_was_answered(self, figures):
        assert figures["confusion"] == {
            "finance/x": {"finance/x": 1, "none": 1},
            "none": {"finance/x": 1, "none": 1},
            "social/y": {"finance/x": 1},
        }

    def test_texts_alone_and_open_requests_count_by_kind_only(self):
        extra = [judged("social/y", decision("social/y", 0.5), kind) for kind in ("text_only", "generic")]
        found, before = summarise([*FEW, *extra]), summarise(FEW)
        assert found["accuracy"]["by_kind"]["text_only"] == {"accuracy": 1.0, "n": 1}
        assert found["accuracy"]["by_kind"]["generic"] == {"accuracy": 1.0, "n": 1}
        assert found["requests"] == before["requests"] + 2
        for key in ("ece", "domain_ece", "abstention", "confusion", "risk_at_coverage"):
            assert found[key] == before[key]

    def test_where_no_task_fits_there_is_no_accuracy(self):
        found = summarise([one for one in FEW if not one.in_scope])
        assert np.isnan([found["accuracy"]["described"], found["accuracy"]["domain"]]).all()

    def test_cost_is_told(self, figures):
        assert figures["latency_ms"] == {"p50": 4.0, "p95": 4.0}
        assert figures["encoder_passes"] == 1.0

    def test_the_hardest_family_comes_first(self, figures):
        assert figures["hardest_families"] == {"family": 0.667}


class Knowing:
    """A pipeline that knows what every phrasing asks for, and takes every text to be Italian."""

    def __init__(self, without: str | None = None) -> None:
        self.language = self
        self.targets = {p.text: p.target for p in load_phrasings()}
        shipped = [*dict.fromkeys(t for t in self.targets.values() if not t.startswith(OUT_OF_SCOPE))]
        self.registry = registry([task for task in shipped if task != without])

    def identify(self, texts: list[str]) -> list[LanguageGuess]:
        return [LanguageGuess("it", 1.0) for _ in texts]

    async def decide(self, text: str, description: str | None, **_: Any) -> Decision:
        assert text
        target = self.targets[description] if description else next(iter(self.registry.tasks))
        if target not in self.registry.tasks:
            return decision(next(iter(self.registry.tasks)), 0.0, kept=False)
        return decision(target, 1.0)


class TestEvaluation:
    async def test_every_request_of_both_parts_is_decided(self):
        told: list[float] = []
        found = await evaluate_gating(Knowing(), None, lambda _, share: told.append(share), rounds=1)  # type: ignore[arg-type]
        of = {split: [p for p in load_phrasings() if p.split == split] for split in ("validation", "test")}
        assert found["requests"] == len(of["validation"]) + 400  # as many texts alone
        assert found["test"]["requests"] == len(of["test"])
        assert told[-1] == 1.0
        assert "language" not in found
        for part in (found, found["test"]):
            assert part["accuracy"]["described"] == part["out_of_scope_auroc"] == 1.0
            assert part["ece"] == part["domain_ece"] == part["abstention"]["risk"] == 0.0
            assert all(list(counts) == [asked] for asked, counts in part["confusion"].items())

    async def test_what_the_registry_lacks_is_out_of_scope(self):
        pipeline = Knowing(without="finance/intent_detection")
        found = await evaluate_gating(pipeline, None, lambda *_: None, rounds=1)  # type: ignore[arg-type]
        assert found["accuracy"]["described"] == found["out_of_scope_auroc"] == 1.0
        assert "finance/intent_detection" not in found["accuracy"]["by_task"]
        assert found["abstention"]["risk"] == 0.0

    async def test_languages_are_judged_where_their_data_is(self, tmp_path: Path):
        rows = [{"text": "La partita è finita ieri sera molto tardi", "language": "it"},
                {"text": "昨日の夜に試合が終わったと新聞が伝えていた", "language": "ja"}]  # fmt: skip
        (tmp_path / "sib200").mkdir()
        with gzip.open(tmp_path / "sib200" / "validation.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(json.dumps(row) for row in rows))
        found = await evaluate_gating(Knowing(), tmp_path, lambda *_: None, rounds=1)  # type: ignore[arg-type]
        half = {"accuracy": 0.5, "errors_by_language": {"ja": 1}}
        assert found["language"] == {"sentences": half, "five_words": half}
        other = await evaluate_gating(Knowing(), tmp_path / "none", lambda *_: None, rounds=1)  # type: ignore[arg-type]
        assert other["language"] == {}


@pytest.mark.parametrize(
    "text", ["one two three four five six seven", "昨日の夜に試合が終わったと新聞が伝えていた"]
)
def test_cuts_are_short_pieces_of_the_text(text):
    rng = np.random.default_rng(0)
    for _ in range(20):
        cut = _cut(text, rng)
        assert cut
        assert cut in text
        assert len(cut.split()) == SHORT_WORDS if " " in text else len(cut) == 12

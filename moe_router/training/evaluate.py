"""Judges gating on the validation families and the test requests, by the very code that serves requests."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.gating.decision import Decision
from moe_router.gating.heads import NONE
from moe_router.gating.language import LanguageIdentifier
from moe_router.gating.pipeline import GatingPipeline
from moe_router.training.gating import coverage_risk
from moe_router.training.metrics import (
    Bools,
    Floats64,
    auroc,
    expected_calibration_error,
    reliability,
    risk_at,
)
from moe_router.training.phrasings import Split
from moe_router.training.requests import Composer, Request, load_texts

SHORT_WORDS = 5
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the requests, surest first, whose risk is told."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A request, the decision on it, and the likeliest task whether or not gating abstained."""

    request: Request
    decision: Decision
    best: str
    in_scope: bool
    """whether some task of the registry fits"""

    @property
    def correct(self) -> bool:
        """Whether the likeliest task is the one asked for."""
        return self.best == self.request.target

    @property
    def asked(self) -> str:
        """The task asked for; none where no task fits."""
        return self.request.target if self.in_scope else NONE

    @property
    def answered(self) -> str:
        """The task that the caller is served; none where gating abstained."""
        return self.decision.task or NONE


async def evaluate_gating(
    pipeline: GatingPipeline,
    data: Path | None,
    report: Callable[[str, float], None],
    *,
    seed: int = 1,
    rounds: int = 2,
) -> dict[str, Any]:
    """Decides validation requests, and those of the test, and sums up.

    Args:
        pipeline: as it serves.
        data: the folder of the datasets; None for the project's own texts alone.
        report: is told how far it is.
        seed: of the composition of requests.
        rounds: every phrasing is asked so often, each time with a fresh text.

    Returns:
        Accuracy by kind, style and language, OOS AUROC, ECE, abstention, confusion and latency, for JSON;
        the same of the test requests under `test`.
    """
    texts = load_texts(data, "validation", 25, seed)
    found: dict[str, dict[str, Any]] = {}
    parts: tuple[tuple[Split, int], ...] = (("validation", 400), ("test", 0))
    for split, bare in parts:
        composer = Composer(texts, split, seed)
        requests = [r for _ in range(rounds) for r in composer.epoch(bare)]
        judged = []
        for index, request in enumerate(requests):
            judged.append(await judge(pipeline, request))
            if index % 50 == 0:
                report(f"deciding {split} requests", index / len(requests))
        found[split] = summarise(judged)
    report("decided", 1.0)
    result = found["validation"] | {"test": found["test"]}
    if data is not None:
        result["language"] = evaluate_language(pipeline.language, data)
    return result


async def judge(pipeline: GatingPipeline, request: Request) -> Judged:
    """Decides a request as it is served, by a fleet that serves every task."""
    text = request.text.text if request.text else "-"
    # An empty text is no request; a dash stands for a text that says nothing.
    decision = await pipeline.decide(
        text, request.asked, language=None if request.text else "en", served=lambda _: True
    )
    best = max(decision.task_probabilities, key=decision.task_probabilities.__getitem__)
    return Judged(request, decision, decision.task or best, request.target in pipeline.registry.tasks)


def summarise(judged: Sequence[Judged]) -> dict[str, Any]:
    """The figures of a set of decisions."""
    described = [j for j in judged if j.request.description is not None and j.request.kind != "generic"]
    in_scope = [j for j in described if j.in_scope]
    confidence = np.array([j.decision.confidence for j in described])
    right = np.array([j.in_scope and j.correct for j in described])
    answered = [j for j in described if j.decision.abstained is None]
    totals = np.array([j.decision.timings.total for j in judged])
    domain_confidence, domain_right = _domains(in_scope)
    return {
        "requests": len(judged),
        "accuracy": {
            "described": _accuracy(in_scope),
            "by_origin": _by(
                in_scope, lambda j: j.request.description.origin if j.request.description else ""
            ),
            "by_kind": _by(judged, lambda j: j.request.kind),
            "by_style": _by(in_scope, lambda j: j.request.description.style if j.request.description else ""),
            "by_language": _by(
                in_scope, lambda j: j.request.description.language if j.request.description else ""
            ),
            "by_task": _by(in_scope, lambda j: j.request.target),
            "domain": round(float(domain_right.mean()), 4) if in_scope else float("nan"),
        },
        "out_of_scope_auroc": round(auroc(confidence, np.array([j.in_scope for j in described])), 4),
        "ece": round(expected_calibration_error(confidence, right), 4),
        "domain_ece": round(expected_calibration_error(domain_confidence, domain_right), 4),
        "reliability": reliability(confidence, right),
        "coverage_risk": coverage_risk(confidence.astype(np.float32), right),
        "risk_at_coverage": [
            {"coverage": share, "risk": round(risk_at(share, confidence, right), 4)} for share in COVERAGES
        ],
        "abstention": {
            "coverage": round(len(answered) / len(described), 4),
            "risk": round(1 - float(np.mean([j.in_scope and j.correct for j in answered])), 4),
        },
        "confusion": _confusion(described),
        "hardest_families": _hardest(in_scope),
        "latency_ms": {
            "p50": round(float(np.median(totals)), 2),
            "p95": round(float(np.quantile(totals, 0.95)), 2),
        },
        "encoder_passes": round(float(np.mean([j.decision.encoder_passes for j in judged])), 3),
    }


def evaluate_language(identifier: LanguageIdentifier, data: Path) -> dict[str, Any]:
    """Accuracy on whole sentences of sib200 (validation) and on cuts of at most five words."""
    file = data / "sib200" / "validation.jsonl.gz"
    if not file.is_file():
        return {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for name, texts in (
        ("sentences", [row["text"] for row in rows]),
        ("five_words", [_cut(row["text"], rng) for row in rows]),
    ):
        guesses = identifier.identify(texts)
        right = [guess.code == row["language"] for guess, row in zip(guesses, rows, strict=True)]
        wrong = Counter(row["language"] for row, ok in zip(rows, right, strict=True) if not ok)
        result[name] = {
            "accuracy": round(float(np.mean(right)), 4),
            "errors_by_language": dict(wrong.most_common(8)),
        }
    return result


def _cut(text: str, rng: np.random.Generator) -> str:
    """At most five words of a text; of scripts without spaces, twelve characters."""
    words = text.split()
    if len(words) <= SHORT_WORDS:
        start = int(rng.integers(max(1, len(text) - 12)))
        return text[start : start + 12]
    start = int(rng.integers(len(words) - SHORT_WORDS + 1))
    return " ".join(words[start : start + SHORT_WORDS])


def _accuracy(judged: Sequence[Judged]) -> float:
    return round(float(np.mean([j.correct for j in judged])), 4) if judged else float("nan")


def _by(judged: Iterable[Judged], key: Callable[[Judged], str]) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        if one.in_scope:
            groups.setdefault(key(one), []).append(one)
    return {name: {"accuracy": _accuracy(own), "n": len(own)} for name, own in sorted(groups.items())}


def _domains(judged: Sequence[Judged]) -> tuple[Floats64, Bools]:
    """How likely each request's likeliest domain is, "none of these" being one, and whether it is right."""
    found = [max(j.decision.domain_probabilities.items(), key=lambda item: item[1]) for j in judged]
    right = [name == j.request.target.split("/")[0] for j, (name, _) in zip(judged, found, strict=True)]
    return np.array([p for _, p in found]), np.array(right)


def _confusion(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = {}
    for one in judged:
        table.setdefault(one.asked, Counter())[one.answered] += 1
    return {asked: dict(counts.most_common()) for asked, counts in sorted(table.items())}


def _hardest(judged: Sequence[Judged]) -> dict[str, float]:
    families: dict[str, list[bool]] = {}
    for one in judged:
        if one.request.description is not None:
            families.setdefault(one.request.description.family, []).append(one.correct)
    scores = {family: round(float(np.mean(right)), 3) for family, right in families.items()}
    return dict(sorted(scores.items(), key=lambda pair: pair[1])[:10])

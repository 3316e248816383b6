"""Judges an expert on labelled rows with the engine that serves it: quality, calibration, languages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brute

from moe_router.contracts import Entity
from moe_router.experts.engines.base import Engine, Job, Outcome
from moe_router.experts.extraction import Claim
from moe_router.experts.scoring import Floats, tempered
from moe_router.experts.task_expert import Finding, TaskExpert
from moe_router.training.experts.examples import Row, request_of
from moe_router.training.metrics import expected_calibration_error, macro_f1

BATCH_TOKENS = 1024

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What an expert said of rows, in their order.

    Attributes:
        findings: its answers.
        scores: of a classification, (n_labels,) log-probabilities before calibration.
        claims: of an extraction, what was found, before calibration.
    """

    findings: list[Finding]
    scores: list[Floats]
    claims: list[list[Claim]]


def ask(expert: TaskExpert, engine: Engine, rows: Sequence[Row], report: Report) -> Answers:
    """Has the expert answer all rows, in batches of like length."""
    works = [expert.prepare(request_of(row, expert.expert.task_key)) for row in rows]
    queue = sorted(
        ((index, part, job) for index, work in enumerate(works) for part, job in enumerate(work.jobs)),
        key=lambda item: item[2].cost,
    )
    count = len(queue)
    outcomes: dict[tuple[int, int], Outcome] = {}
    while queue:
        batch: list[tuple[int, int, Job]] = []
        spent = 0
        while queue and (not batch or spent + queue[-1][2].cost <= BATCH_TOKENS):
            batch.append(queue.pop())
            spent += batch[-1][2].cost
        answers = engine.infer([job for *_, job in batch])
        outcomes.update({(i, p): answer for (i, p, _), answer in zip(batch, answers, strict=True)})
        report("asking the expert", 1 - len(queue) / count)
    own = [[outcomes[index, part] for part in range(len(work.jobs))] for index, work in enumerate(works)]
    findings = [expert.finish(work, found) for work, found in zip(works, own, strict=True)]
    scores = [found[0] for found in own if found and not isinstance(found[0], int)]
    return Answers(findings, scores, [work.claims for work in works])


def figures(answers: Answers, rows: Sequence[Row], *, extracts: bool) -> dict[str, Any]:
    """Those of the rows' answers: `entity_figures` or `probability_figures`."""
    if extracts:
        return entity_figures([finding.entities or [] for finding in answers.findings], rows)
    return probability_figures([finding.probabilities or {} for finding in answers.findings], rows)


def probability_figures(tables: Sequence[Mapping[str, float]], rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy, macro-F1 and ECE, also by language, from each row's probability of each label."""
    predicted = [max(table, key=lambda label: table[label]) for table in tables]
    confidence = np.array([max(table.values()) for table in tables])
    return with_languages(rows, lambda chosen: _label_figures(rows, predicted, confidence, chosen))


def _label_figures(
    rows: Sequence[Row], predicted: Sequence[str], confidence: Floats, chosen: Sequence[int]
) -> dict[str, float]:
    gold = [rows[i].label for i in chosen]
    said = [predicted[i] for i in chosen]
    right = np.array([a == b for a, b in zip(gold, said, strict=True)])
    return {
        "accuracy": round(float(right.mean()), 4),
        "macro_f1": round(macro_f1(gold, said), 4),
        "ece": round(expected_calibration_error(confidence[list(chosen)], right), 4),
        "texts": len(chosen),
    }


def entity_figures(found: Sequence[Sequence[Entity]], rows: Sequence[Row]) -> dict[str, Any]:
    """Micro precision, recall and F1 of exact spans with types, and the ECE of the entities' confidence."""
    return with_languages(rows, lambda chosen: _entity_figures(found, rows, chosen))


def _entity_figures(
    found: Sequence[Sequence[Entity]], rows: Sequence[Row], chosen: Sequence[int]
) -> dict[str, float]:
    right: list[bool] = []
    confidence: list[float] = []
    gold_count = 0
    for index in chosen:
        gold = _places(rows[index].entities)
        gold_count += len(gold)
        for entity in found[index]:
            right.append(_place(entity) in gold)
            confidence.append(entity.confidence)
    hits = sum(right)
    return {
        "precision": round(hits / max(1, len(right)), 4),
        "recall": round(hits / max(1, gold_count), 4),
        "span_f1": round(2 * hits / max(1, len(right) + gold_count), 4),
        "ece": round(expected_calibration_error(np.array(confidence), np.array(right)), 4) if right else 0.0,
        "texts": len(chosen),
        "entities": gold_count,
    }


def entity_temperatures(answers: Answers, rows: Sequence[Row]) -> tuple[float, float]:
    """The temperatures of spans and of types for which entities' confidence has the least log loss.

    Of each row those claims count whose place and type were answered; where there are none, both are 1.
    """
    told, right = [], []
    for finding, claims, row in zip(answers.findings, answers.claims, rows, strict=True):
        answered, gold = _places(finding.entities or []), _places(row.entities)
        counted = [claim for claim in claims if _place(claim) in answered]
        told += [(claim.span, claim.kind) for claim in counted]
        right += [_place(claim) in gold for claim in counted]
    if not told:
        return 1.0, 1.0
    is_right, log_probabilities = np.array(right), np.array(told)

    def loss(log_temperatures: Floats) -> float:
        p = np.clip(tempered(log_probabilities, np.exp(log_temperatures)).prod(axis=1), 1e-6, 1 - 1e-6)
        return float(-np.where(is_right, np.log(p), np.log1p(-p)).mean())

    # On a grid: where all are sure and some wrong the loss is flat, and a descent stays where it begins.
    span, kind = np.exp(brute(loss, [(-2.5, 2.5)] * 2, Ns=51, finish=None)).tolist()
    return span, kind


def _places(entities: Iterable[Entity]) -> set[tuple[str, int, int]]:
    return {_place(entity) for entity in entities}


def _place(one: Entity | Claim) -> tuple[str, int, int]:
    return one.type, one.start, one.end


def with_languages(
    rows: Sequence[Row], figures: Callable[[Sequence[int]], dict[str, float]]
) -> dict[str, Any]:
    """The figures of all rows, and under `languages` those of each, where there are several."""
    whole: dict[str, Any] = figures(range(len(rows)))
    languages = sorted({row.language for row in rows})
    if len(languages) > 1:
        whole["languages"] = {
            language: figures([i for i, row in enumerate(rows) if row.language == language])
            for language in languages
        }
    return whole

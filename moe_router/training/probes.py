"""Fits the probes: a calibrated logistic regression on the encoder's embedding for each dataset's task."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import softmax
from moe_router.gating.weights import Floats, Weights, save
from moe_router.training.gating import Strings, fit_linear, fit_temperature, index_of
from moe_router.training.metrics import expected_calibration_error, macro_f1

CALIBRATION_SHARE = 0.15
"""Of the training texts, set aside for the temperature; the validation file stays unseen."""


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One probe to fit."""

    data: Path
    """folder with train.jsonl.gz and validation.jsonl.gz"""
    task: str
    output: Path
    limit: int = 8_000
    """at most so many training texts"""
    regularisation: float = 0.05
    seed: int = 0


def fit_probe(run: ProbeRun, encoder: Encoder, report: Callable[[str, float], None]) -> dict[str, Any]:
    """Fits and writes `output/{domain}__{task}`.safetensors and .json.

    Returns:
        Accuracy, macro-F1 and ECE on the validation file, also written into the description.
    """
    rng = np.random.default_rng(run.seed)
    texts, gold = _read(run.data / "train.jsonl.gz")
    order = rng.permutation(len(texts))[: run.limit]
    texts, gold = [texts[i] for i in order], gold[order]
    labels = sorted(set(gold.tolist()))
    vectors = _encode(encoder, texts, run.task, report)
    aside = int(len(texts) * CALIBRATION_SHARE)
    weight, bias = fit_linear(vectors[aside:], gold[aside:], labels, run.regularisation)
    aside_logits, aside_gold = vectors[:aside] @ weight.T + bias, index_of(gold[:aside], labels)
    temperature = fit_temperature(aside_logits, aside_gold)
    skill = float((aside_logits.argmax(axis=1) == aside_gold).mean())
    held_texts, held_gold = _read(run.data / "validation.jsonl.gz")
    logits = _encode(encoder, held_texts, run.task, report) @ weight.T + bias
    figures = _figures(softmax(logits / np.float32(temperature)), held_gold.tolist(), labels)
    meta = {
        "encoder": encoder.identity, "hidden": encoder.hidden, "task": run.task, "labels": labels,
        "temperature": round(temperature, 4), "texts": len(texts), "seed": run.seed,
        "skill": round(skill, 4), "validation": figures,
    }  # fmt: skip
    save(run.output, run.task.replace("/", "__"), Weights({"weight": weight, "bias": bias}, meta))
    return figures


def _figures(probabilities: Floats, gold: list[str], labels: list[str]) -> dict[str, float]:
    predicted = [labels[i] for i in probabilities.argmax(axis=1)]
    right = np.array([g == p for g, p in zip(gold, predicted, strict=True)])
    return {
        "accuracy": round(float(right.mean()), 4),
        "macro_f1": round(macro_f1(gold, predicted), 4),
        "ece": round(expected_calibration_error(probabilities.max(axis=1).astype(np.float64), right), 4),
        "texts": len(gold),
    }


def _encode(encoder: Encoder, texts: list[str], task: str, report: Callable[[str, float], None]) -> Floats:
    parts = []
    for at in range(0, len(texts), 512):
        parts.append(encoder.encode(texts[at : at + 512]))
        report(f"encoding for {task}", (at + len(parts[-1])) / len(texts))
    return np.concatenate(parts)


def _read(path: Path) -> tuple[list[str], Strings]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])

"""Fits the probes: a calibrated logistic regression on the encoder's embedding for each dataset's task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_router.errors import RequestError
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import softmax
from moe_router.gating.weights import Floats, Weights, save
from moe_router.training.experts.examples import Row, halves, read_rows
from moe_router.training.experts.judge import probability_figures
from moe_router.training.gating import Strings, fit_linear, fit_temperature, index_of

REGULARISATIONS = (0.05, 0.2, 1.0, 5.0)
"""As of `fit_linear`; what generalises depends on how much the training texts are like each other."""


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """One probe to fit."""

    data: Path
    """folder with train.jsonl.gz and validation.jsonl.gz"""
    task: str
    output: Path
    limit: int = 8_000
    """so many training texts; of a label that is rarer than that, one all the same"""
    seed: int = 0


def fit_probe(run: ProbeRun, encoder: Encoder, report: Callable[[str, float], None]) -> dict[str, Any]:
    """Fits and writes `output/{domain}__{task}`.safetensors and .json.

    Regularisation, temperature and skill come of the half of the validation file that chooses: texts of
    the training file are too much like those that are fitted on. The figures are those of the other half.

    Returns:
        Accuracy, macro-F1 and ECE, also written into the description.

    Raises:
        RequestError: a file cannot be read, or has too little to fit or to judge a probe on.
    """
    rng = np.random.default_rng(run.seed)
    every = read_rows(run.data / "train.jsonl.gz")
    rows = _drawn(every, run.limit, rng)
    gold = np.array([row.label for row in rows])
    labels = sorted(set(gold.tolist()))
    if len(labels) < 2:
        raise RequestError(
            f"{run.data / 'train.jsonl.gz'}: a probe needs texts of two labels or more, "
            f"here are {len(rows)} texts of {len(labels)}"
        )
    choosing, judging = halves(read_rows(run.data / "validation.jsonl.gz"))
    choosing = [row for row in choosing if row.label in labels]
    if not (choosing and judging):
        raise RequestError(
            f"{run.data / 'validation.jsonl.gz'}: one half of its texts, drawn at random, has none "
            "of the training file's labels: add more"
        )
    right = index_of(np.array([row.label for row in choosing]), labels)
    vectors, own, held = (encoded(encoder, part, run.task, report) for part in (rows, choosing, judging))
    best = min((_fit(vectors, gold, labels, r, own, right) for r in REGULARISATIONS), key=lambda f: f.loss)
    p = softmax((held @ best.weight.T + best.bias) / np.float32(best.temperature))
    figures = probability_figures([dict(zip(labels, row, strict=True)) for row in p.tolist()], judging)
    figures.pop("languages", None)
    meta = {
        "encoder": encoder.identity, "hidden": encoder.hidden, "task": run.task, "labels": labels,
        "temperature": round(best.temperature, 4), "regularisation": best.regularisation,
        "texts": len(rows), "seed": run.seed, "skill": round(best.accuracy, 4), "validation": figures,
    }  # fmt: skip
    save(run.output, run.task.replace("/", "__"), Weights({"weight": best.weight, "bias": best.bias}, meta))
    return figures


def _drawn(rows: Sequence[Row], limit: int, rng: np.random.Generator) -> list[Row]:
    """So many of the rows at random, each label among them: a probe without one of the task's is refused."""
    order = rng.permutation(len(rows)).tolist()
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(rows[i].label, i)
    needed = set(first.values())
    wanted = needed | set([i for i in order if i not in needed][: max(limit - len(needed), 0)])
    return [rows[i] for i in order if i in wanted]


@dataclass(frozen=True, slots=True)
class _Fit:
    regularisation: float
    weight: Floats
    bias: Floats
    temperature: float
    loss: float
    """negative log-likelihood of the texts that choose"""
    accuracy: float
    """on them"""


def _fit(
    vectors: Floats,
    gold: Strings,
    labels: Sequence[str],
    regularisation: float,
    choosing: Floats,
    right: NDArray[np.intp],
) -> _Fit:
    weight, bias = fit_linear(vectors, gold, labels, regularisation)
    logits = choosing @ weight.T + bias
    temperature = fit_temperature(logits, right)
    p = softmax(logits / np.float32(temperature))
    loss = -np.log(np.maximum(p[np.arange(len(right)), right], 1e-12)).mean()
    accuracy = (logits.argmax(axis=1) == right).mean()
    return _Fit(regularisation, weight, bias, temperature, float(loss), float(accuracy))


def encoded(encoder: Encoder, rows: Sequence[Row], task: str, report: Callable[[str, float], None]) -> Floats:
    """The texts' vectors, (rows, hidden)."""
    parts = []
    for at in range(0, len(rows), 512):
        parts.append(encoder.encode([row.text for row in rows[at : at + 512]]))
        report(f"encoding for {task}", (at + len(parts[-1])) / len(rows))
    return np.concatenate(parts)

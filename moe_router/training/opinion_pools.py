"""Fits how a probe and an expert are heard together, by likelihood on the texts that may choose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from moe_router.errors import RequestError
from moe_router.experts.lru_pool import LruModelPool
from moe_router.experts.model_host import PoolConfig
from moe_router.gating.encoder import Encoder
from moe_router.gating.opinion_pool import OpinionPool, log_opinion
from moe_router.gating.probe import Probe
from moe_router.gating.weights import Floats, Weights, load, save
from moe_router.registry import Expert, Registry
from moe_router.training.experts.examples import Row, halves, read_rows, request_of
from moe_router.training.experts.judge import Report, probability_figures
from moe_router.training.probes import encoded

MOST = 5.0
"""Bound on a weight: a pool of few texts must not grow surer than they can prove."""
BATCH = 64
Table = dict[str, float]


@dataclass(frozen=True, slots=True)
class PoolRun:
    """Which probe and which expert, on what.

    Attributes:
        task: its key.
        data: folder with validation.jsonl.gz: one half of it fits the weights, the other judges them.
        probes: folder of the probe's files, which are told of the pool.
        base: key of the expert's base model.
        experts: how the expert is run.
        expert: its name, where the task has several on that model; None takes the first.
        limit: at most so many texts of each half.
    """

    task: str
    data: Path
    probes: Path
    base: str
    experts: PoolConfig
    expert: str | None = None
    limit: int = 1000


def fit_opinion_pool(
    run: PoolRun, registry: Registry, encoder: Encoder, report: Report
) -> dict[str, dict[str, Any]]:
    """Fits the weights and writes them into the probe's description.

    Returns:
        Accuracy, macro-F1 and ECE on the half that judges, of `probe`, `expert` and `both`.

    Raises:
        RequestError: the data cannot be read or has nothing to fit on, or the task has no such expert.
        ModelAssetError: the probe cannot be had.
        NoWorkerError: the base model cannot be loaded.
    """
    task, expert = registry.task(run.task), _expert(run, registry)
    name = run.task.replace("/", "__")
    probe = Probe(run.probes / name, task.label_set, encoder=encoder.identity, hidden=encoder.hidden)
    # Halved as for the adapter and the probe, so that no text that chose for these judges the pool.
    choosing, judging = (
        [row for row in half if row.label in task.label_set][: run.limit]
        for half in halves(read_rows(run.data / "validation.jsonl.gz"))
    )
    if not (choosing and judging):
        raise RequestError(f"one half of {run.data}'s validation file has no text of {run.task}'s labels")
    rows = [*choosing, *judging]
    by_probe = [probe(v).probabilities for v in encoded(encoder, rows, run.task, report)]
    by_expert = asyncio.run(_ask_expert(run.experts, registry, expert, rows, report))
    first = len(choosing)
    pool = fit(by_probe[:first], by_expert[:first], [row.label for row in choosing])
    both = [pool(a, b) for a, b in zip(by_probe, by_expert, strict=True)]
    ways = {"probe": by_probe, "expert": by_expert, "both": both}
    figures = {way: probability_figures(tables[first:], judging) for way, tables in ways.items()}
    weights = load(run.probes, name, encoder=encoder.identity, hidden=encoder.hidden)
    save(run.probes, name, _told(weights, expert, pool, figures["both"]))
    return figures


def _expert(run: PoolRun, registry: Registry) -> Expert:
    fitting = [
        e
        for e in registry.all_experts(run.task)
        if e.base_model_key == run.base and run.expert in (None, e.name)
    ]
    if not fitting:
        named = f" named {run.expert}" if run.expert is not None else ""
        raise RequestError(f"{run.task} has no expert{named} on {run.base}")
    return fitting[0]


def fit(probe: Sequence[Table], expert: Sequence[Table], gold: Sequence[str]) -> OpinionPool:
    """The weights of least negative log-likelihood, each in [0, MOST].

    Args:
        probe: what the probe thinks of each text; its labels are those of the pool.
        expert: what the expert thinks.
        gold: the right labels.
    """
    opinions = np.stack([_logs(probe, probe), _logs(expert, probe)])
    right = np.array([list(table).index(label) for table, label in zip(probe, gold, strict=True)])
    rows = np.arange(len(right))

    def loss(weights: Floats) -> float:
        logits = np.tensordot(weights, opinions, axes=1)
        return float((logsumexp(logits, axis=1) - logits[rows, right]).mean())

    found = minimize(loss, np.array([0.3, 0.7]), method="L-BFGS-B", bounds=[(0.0, MOST)] * 2)
    return OpinionPool(*(round(float(weight), 4) for weight in found.x))


def _logs(tables: Sequence[Table], labels: Sequence[Table]) -> Floats:
    return np.stack([log_opinion(table, own) for table, own in zip(tables, labels, strict=True)])


async def _ask_expert(
    config: PoolConfig, registry: Registry, expert: Expert, rows: Sequence[Row], report: Report
) -> list[Table]:
    models = LruModelPool(registry, config)
    found: list[Table] = []
    try:
        for at in range(0, len(rows), BATCH):
            asked = [request_of(row, expert.task_key) for row in rows[at : at + BATCH]]
            whole = [request.model_copy(update={"return_probabilities": True}) for request in asked]
            answers = await asyncio.gather(*(models.classify(expert, request) for request in whole))
            found += [answer.probabilities or {} for answer in answers]
            report("asking the expert", len(found) / len(rows))
    finally:
        await models.aclose()
    return found


def _told(weights: Weights, expert: Expert, pool: OpinionPool, figures: dict[str, Any]) -> Weights:
    """The probe's weights, whose description names the pool beside those with other experts."""
    own = {"model_key": expert.base_model_key, "name": expert.name}
    others = [p for p in weights.meta.get("pools", ()) if {k: p[k] for k in own} != own]
    overall = {key: value for key, value in figures.items() if key != "languages"}
    entry = own | {"probe": pool.probe, "expert": pool.expert, "validation": overall}
    return Weights(weights.arrays, {**weights.meta, "pools": [*others, entry]})

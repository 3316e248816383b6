"""Makes all of gating's weights from the data, reproducibly: `mole train gating`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.gating import domain, qnetwork, task_router, wording
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import MixtureHead
from moe_router.gating.weights import Weights, save
from moe_router.gating.wording import Wording, joined
from moe_router.registry import Registry
from moe_router.training import qlearning
from moe_router.training.augment import augmented
from moe_router.training.embedded import Embedded, Report
from moe_router.training.gating import Part, coverage_risk, fit_head
from moe_router.training.phrasings import Split, load_phrasings
from moe_router.training.requests import Composer, Request, load_texts
from moe_router.training.simulation import simulate, vectors_of
from moe_router.training.wording import fit_wording, weigh

LICENCES = {
    "requests and own texts": "Apache-2.0, part of this project",
    "sib200": "Apache-2.0, sentences CC-BY-SA-4.0 (FLORES-200)",
    "banking77": "CC-BY-4.0",
    "umsab": "Apache-2.0 repository; source corpora with terms of their own",
    "hatecheck": "CC-BY-4.0",
    "pii": "MIT",
    "finance_sentiment": "ODC-BY-1.0",
}


@dataclass(frozen=True, slots=True)
class GatingRun:
    """Where the data is and how much of it to use."""

    data: Path | None
    output: Path
    texts_per_group: int = 60
    """texts of a dataset and language"""
    seed: int = 0
    without: frozenset[str] = frozenset()
    """tasks left out wholly, to judge how a new task fares"""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights that find the task."""

    domains: Weights
    tasks: Weights
    words: Weights

    def save(self, folder: Path) -> None:
        """Writes them where gating looks for them."""
        save(folder, domain.WEIGHTS, self.domains)
        save(folder, task_router.WEIGHTS, self.tasks)
        save(folder, wording.WEIGHTS, self.words)


def build(run: GatingRun, registry: Registry, encoder: Encoder, report: Report) -> dict[str, Any]:
    """Fits the domain head, the task head, the wording and the Q-network and writes them into `run.output`.

    Returns:
        The figures that the weights' description holds too.
    """
    embed = Embedded(encoder, report)
    train, validation = (part(run, split, embed) for split in ("train", "validation"))
    meta = {
        "encoder": encoder.identity, "hidden": encoder.hidden, "seed": run.seed,
        "data": {"requests": len(train.phrasings), "texts": len(train.texts), "licences": LICENCES},
    }  # fmt: skip
    held = Composer(validation.texts, "validation", run.seed + 1, run.without).epoch(600)
    fitted = fit(train, validation, held, registry, meta, embed, report)
    fitted.save(run.output)
    report("training the Q-network", 0.6)
    composer = Composer(train.texts, "train", run.seed, run.without)
    heads = make_heads(registry, fitted.domains, fitted.tasks, embed)
    episodes = simulate(composer.epoch(1500), registry, heads, Wording(fitted.words), embed, run.seed)
    network = qlearning.train(episodes, qlearning.DqnRun(seed=run.seed), meta)
    save(run.output, qnetwork.WEIGHTS, network)
    report("gating trained", 1.0)
    return {key: fitted.tasks.meta[key] for key in ("temperature", "coverage_risk")}


def fit(
    train: Part,
    validation: Part,
    held: list[Request],
    registry: Registry,
    meta: Mapping[str, Any],
    embed: Embedded,
    report: Report,
) -> Fitted:
    """Fits what finds the task, and measures when it should abstain.

    Args:
        train: what the weights are fitted on.
        validation: what temperatures are chosen on.
        held: validation requests, what the wording's weight and the thresholds are chosen on.
        registry: whose tasks are on offer.
        meta: goes into the weights' description (encoder, hidden, seed, data).
        embed: encodes.
        report: is told how far it is.
    """
    report("fitting the domain head", 0.0)
    domains = fit_head(train, validation, lambda task: task.split("/")[0], meta)
    report("fitting the task head", 0.3)
    tasks = fit_head(train, validation, lambda task: task, meta)
    _, head = make_heads(registry, domains, tasks, embed)
    report("fitting the wording", 0.5)
    words = _words(fit_wording(train.phrasings, meta["seed"]), held, head, embed)
    curve = _abstaining(held, head, Wording(words), embed)
    return Fitted(domains, Weights(tasks.arrays, dict(tasks.meta) | {"coverage_risk": curve}), words)


def part(run: GatingRun, split: Split, embed: Embedded) -> Part:
    """Requests and texts of one split with their vectors."""
    phrasings = [p for p in load_phrasings() if p.split == split]
    if split == "train":
        phrasings = augmented(phrasings, run.seed)
    # Only now: so the copies of the others are the same whatever is left out.
    phrasings = [p for p in phrasings if p.target not in run.without]
    texts = [
        t for t in load_texts(run.data, split, run.texts_per_group, run.seed) if t.task not in run.without
    ]
    return Part(phrasings, embed([p.text for p in phrasings]), texts, embed([t.text for t in texts]))


def make_heads(
    registry: Registry, domains: Weights, tasks: Weights, embed: Embedded
) -> tuple[MixtureHead, MixtureHead]:
    """The domain head and the task head as the pipeline makes them."""
    prototypes = {
        key: embed([p for p in (task.description, *task.examples) if p])
        for key, task in registry.tasks.items()
        if task.description or task.examples
    }
    head = MixtureHead(tasks, tuple(registry.tasks), prototypes)
    return domain.domain_head(registry, domains, prototypes), head


def _words(weights: Weights, requests: list[Request], head: MixtureHead, embed: Embedded) -> Weights:
    """Weighs the wording against the head on the requests that have a description."""
    asked = [(r.description.text, r) for r in requests if r.description is not None]
    found = [head(*vectors_of(request, embed)) for _, request in asked]
    return weigh(weights, [text for text, _ in asked], found, [request.target for _, request in asked])


def _abstaining(
    requests: list[Request], head: MixtureHead, words: Wording, embed: Embedded
) -> list[dict[str, float]]:
    confidence, correct = [], []
    for request in requests:
        found = joined(words, request.asked, head(*vectors_of(request, embed)))
        best = int(found.probabilities.argmax())
        confidence.append(float(found.probabilities[best]))
        correct.append(found.names[best] == request.target)
    return coverage_risk(np.array(confidence, np.float32), np.array(correct))

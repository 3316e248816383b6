"""Makes all of gating's weights from the data, reproducibly: `mole train gating`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_router.gating import domain, qnetwork, task_router
from moe_router.gating.encoder import Encoder
from moe_router.gating.heads import MixtureHead
from moe_router.gating.weights import Floats, Weights, save
from moe_router.registry import Registry
from moe_router.training import qlearning
from moe_router.training.augment import augmented
from moe_router.training.gating import Part, coverage_risk, fit_head
from moe_router.training.phrasings import Split, load_phrasings
from moe_router.training.requests import Composer, Request, load_texts

Report = Callable[[str, float], None]

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


class Embedded:
    """Encodes texts once and hands out their vectors."""

    def __init__(self, encoder: Encoder, report: Report) -> None:
        """Takes the encoder and who is told of the progress."""
        self.encoder = encoder
        self._report = report
        self._vectors: dict[str, Floats] = {}

    def __call__(self, texts: list[str]) -> Floats:
        """(len(texts), hidden) float32."""
        new = sorted(set(texts) - self._vectors.keys())
        for at in range(0, len(new), 512):
            part = new[at : at + 512]
            self._vectors.update(zip(part, self.encoder.encode(part), strict=True))
            self._report("encoding texts", (at + len(part)) / len(new))
        if not texts:
            return np.zeros((0, self.encoder.hidden), np.float32)
        return np.stack([self._vectors[text] for text in texts])


def build(run: GatingRun, registry: Registry, encoder: Encoder, report: Report) -> dict[str, Any]:
    """Fits the domain head, the task head and the Q-network and writes them into `run.output`.

    Returns:
        The figures that the weights' description holds too.
    """
    embed = Embedded(encoder, report)
    train, validation = (part(run, split, embed) for split in ("train", "validation"))
    meta = {
        "encoder": encoder.identity, "hidden": encoder.hidden, "seed": run.seed,
        "data": {"requests": len(train.phrasings), "texts": len(train.texts), "licences": LICENCES},
    }  # fmt: skip
    report("fitting the domain head", 0.0)
    domains = fit_head(train, validation, lambda task: task.split("/")[0], meta)
    report("fitting the task head", 0.3)
    tasks = fit_head(train, validation, lambda task: task, meta)
    heads = make_heads(registry, domains, tasks, embed)
    held = Composer(validation.texts, "validation", run.seed + 1, run.without).epoch(600)
    tasks = Weights(tasks.arrays, dict(tasks.meta) | {"coverage_risk": _abstaining(held, heads[1], embed)})
    save(run.output, domain.WEIGHTS, domains)
    save(run.output, task_router.WEIGHTS, tasks)
    report("training the Q-network", 0.6)
    composer = Composer(train.texts, "train", run.seed, run.without)
    episodes = simulate(composer.epoch(1500), registry, heads, embed, run.seed)
    network = qlearning.train(episodes, qlearning.DqnRun(seed=run.seed), meta)
    save(run.output, qnetwork.WEIGHTS, network)
    report("gating trained", 1.0)
    return {"temperature": tasks.meta["temperature"], "coverage_risk": tasks.meta["coverage_risk"]}


def part(run: GatingRun, split: Split, embed: Embedded) -> Part:
    """Requests and texts of one split with their vectors."""
    phrasings = [p for p in load_phrasings() if p.split == split and p.target not in run.without]
    if split == "train":
        phrasings = augmented(phrasings, run.seed)
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


def simulate(
    requests: list[Request],
    registry: Registry,
    heads: tuple[MixtureHead, MixtureHead],
    embed: Embedded,
    seed: int,
) -> qlearning.Episodes:
    """Episodes in which every task has a probe and one expert of unit cost.

    What they would answer is drawn, not logged: each is right as often as its confidence says, and
    on average experts are somewhat better. So the network learns what a calibrated confidence is
    worth against a call, whatever the task.
    """
    rng = np.random.default_rng(seed)
    names = tuple(registry.tasks)
    vectors = [vectors_of(request, embed) for request in requests]
    task_p = [heads[1](*pair) for pair in vectors]
    domain_p = [heads[0](*pair).as_dict() for pair in vectors]
    zero = np.zeros(embed.encoder.hidden, np.float32)
    count = len(requests)
    quality = np.stack([rng.uniform(0.5, 0.95, count), rng.uniform(0.6, 0.97, count)], axis=1)
    confidence = rng.beta(8 * quality, 8 * (1 - quality)).astype(np.float32)
    correct = rng.random((count, 2)) < confidence
    return qlearning.Episodes(
        description=np.stack([zero if d is None else d for d, _ in vectors]),
        text=np.stack([zero if t is None else t for _, t in vectors]),
        task_probability=np.stack([d.probabilities for d in task_p]),
        none_probability=np.array([d.none for d in task_p], np.float32),
        domain_probability=np.array(
            [[own.get(n.split("/")[0], 0.0) for n in names] for own in domain_p], np.float32
        ),
        language_probability=rng.beta(8, 1, count).astype(np.float32),
        target=np.array([names.index(r.target) if r.target in names else -1 for r in requests], np.intp),
        offered=np.ones((len(names), 2), bool),
        cost=np.array([0.0, 1.0], np.float32),
        confidence=confidence,
        margin=np.maximum(0.0, 2 * confidence - 1).astype(np.float32),
        correct=correct,
    )


def vectors_of(request: Request, embed: Embedded) -> tuple[Floats | None, Floats | None]:
    """The vectors of a request's description and text."""
    described = None if request.description is None else embed([request.description.text])[0]
    return described, None if request.text is None else embed([request.text.text])[0]


def _abstaining(requests: list[Request], head: MixtureHead, embed: Embedded) -> list[dict[str, float]]:
    confidence, correct = [], []
    for request in requests:
        found = head(*vectors_of(request, embed))
        best = int(found.probabilities.argmax())
        confidence.append(float(found.probabilities[best]))
        correct.append(found.names[best] == request.target)
    return coverage_risk(np.array(confidence, np.float32), np.array(correct))

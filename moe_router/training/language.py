"""Fits the character n-gram model of languages on sentences and cuts of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moe_router.gating.ngrams import BUCKETS, IDENTITY, WEIGHTS, buckets
from moe_router.gating.weights import Weights, save
from moe_router.training.phrasings import load_own_texts, load_phrasings


@dataclass(frozen=True, slots=True)
class LanguageRun:
    """Hyperparameters of a run."""

    data: Path
    output: Path
    epochs: int = 12
    batch: int = 64
    learning_rate: float = 0.05
    seed: int = 0


def train_language(run: LanguageRun) -> None:
    """Trains on sib200's training sentences and the project's own texts, and writes the weights."""
    torch.manual_seed(run.seed)
    rng = np.random.default_rng(run.seed)
    rows = _sentences(run.data / "sib200" / "train.jsonl.gz")
    languages = sorted({language for _, language in rows})
    own = [(t.text, t.language) for t in load_own_texts()]
    own += [(p.text, p.language) for p in load_phrasings() if p.split == "train" and p.style != "json"]
    rows += [(text, language) for text, language in own if language in languages]
    model = nn.EmbeddingBag(BUCKETS, len(languages), mode="mean")
    nn.init.zeros_(model.weight)
    bias = nn.Parameter(torch.zeros(len(languages)))
    optimizer = torch.optim.Adam([model.weight, bias], lr=run.learning_rate)
    steps = run.epochs * (len(rows) // run.batch + 1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for epoch in range(run.epochs):
        order = rng.permutation(len(rows))
        total = 0.0
        for at in range(0, len(order), run.batch):
            chosen = [rows[i] for i in order[at : at + run.batch]]
            logits = model(*_bags([cut(text, rng) for text, _ in chosen])) + bias
            gold = torch.tensor([languages.index(language) for _, language in chosen])
            loss = functional.cross_entropy(logits, gold, label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(rows):.4f}", flush=True)
    meta = {
        "encoder": IDENTITY, "hidden": BUCKETS, "languages": languages, "temperature": 1.0, "seed": run.seed,
        "data": "sib200 train (sentences CC-BY-SA-4.0) and the project's own texts and requests",
    }  # fmt: skip
    arrays = {"weight": model.weight.detach().numpy(), "bias": bias.detach().numpy()}
    save(run.output, WEIGHTS, Weights(arrays, meta))


def cut(text: str, rng: np.random.Generator) -> str:
    """The whole text, or a piece of 1 to 12 words; of scripts without spaces, of 3 to 30 characters."""
    if rng.random() < 0.25:
        return text
    words = text.split()
    if len(words) < 4 and len(text) > 12:
        size = int(rng.integers(3, 31))
        start = int(rng.integers(max(1, len(text) - size)))
        return text[start : start + size]
    size = int(rng.integers(1, 13))
    start = int(rng.integers(max(1, len(words) - size + 1)))
    return " ".join(words[start : start + size])


def _bags(texts: list[str]) -> tuple[Tensor, Tensor]:
    parts = [buckets(text) for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])[:-1]])
    return torch.from_numpy(np.concatenate(parts)), torch.from_numpy(offsets)


def _sentences(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [(row["text"], row["language"]) for row in map(json.loads, lines)]

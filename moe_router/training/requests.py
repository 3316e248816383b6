"""Composes requests to train and judge gating on: a description, a text, and what is asked for."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from moe_router.training.phrasings import (
    GENERIC,
    OUT_OF_SCOPE,
    Phrasing,
    Split,
    load_own_texts,
    load_phrasings,
)

Kind = Literal["matching", "cross_lingual", "other_surface", "description_only", "generic", "text_only"]

DATASETS = {
    "umsab": "social/sentiment_analysis",
    "hatecheck": "social/hate_speech",
    "sib200": "general/topic_classification",
    "banking77": "finance/intent_detection",
    "pii": "finance/pii_detection",
    "finance_sentiment": "finance/sentiment_analysis",
}
"""Which task a dataset's texts are of."""

GENERIC_TARGETS = {
    "generic/sentiment": {
        "finance/sentiment_analysis": "finance/sentiment_analysis",
        "finance/news_classification": "finance/sentiment_analysis",
        "social/sentiment_analysis": "social/sentiment_analysis",
        "retail/review_rating": "retail/review_rating",
    }
}
"""What an open request means on a text of a kind."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the task that it is data of."""

    text: str
    task: str
    language: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `target` is a task key or `oos/…`."""

    description: Phrasing | None
    text: Text | None
    target: str
    kind: Kind

    @property
    def asked(self) -> str | None:
        """The description's text; None where there is none."""
        return self.description.text if self.description is not None else None


def load_texts(data: Path | None, split: Split, per_group: int, seed: int) -> list[Text]:
    """Texts of every task: up to `per_group` of each dataset and language, and the project's own.

    Args:
        data: the folder of the datasets; None for the own texts alone.
        split: of the datasets; every fourth own text is for validation.
        per_group: at most so many of a dataset in a language.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    found: list[Text] = []
    for name, task in DATASETS.items():
        file = data / name / f"{split}.jsonl.gz" if data else None
        if file is None or not file.is_file():
            continue
        groups: dict[str, list[str]] = defaultdict(list)
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                groups[row["language"]].append(row["text"])
        for language, texts in sorted(groups.items()):
            chosen = rng.permutation(len(texts))[:per_group]
            found += [Text(texts[index], task, language) for index in chosen]
    own = load_own_texts()
    wanted = [own[i] for i in range(len(own)) if (i % 4 == 3) == (split == "validation")]
    return found + [Text(o.text, o.task, o.language) for o in wanted]


class Composer:
    """Draws requests from phrasings and texts with a seeded generator."""

    def __init__(
        self, texts: Sequence[Text], split: Split, seed: int, without: frozenset[str] = frozenset()
    ) -> None:
        """Groups phrasings and texts.

        Args:
            texts: of the same split.
            split: of the phrasings.
            seed: of the draws.
            without: tasks left out wholly, to judge how a new task fares.
        """
        self.rng = np.random.default_rng(seed)
        self.phrasings = [p for p in load_phrasings() if p.split == split and p.target not in without]
        self.texts = [t for t in texts if t.task not in without]
        self.by_task: dict[str, list[Text]] = defaultdict(list)
        self.by_task_language: dict[tuple[str, str], list[Text]] = defaultdict(list)
        for text in self.texts:
            self.by_task[text.task].append(text)
            self.by_task_language[text.task, text.language].append(text)

    def described(self, phrasing: Phrasing) -> Request | None:
        """A request with this description and some text, or none.

        Returns:
            None where the phrasing needs a text that is not there.
        """
        if phrasing.target.startswith(GENERIC):
            return self._generic(phrasing)
        draw = self.rng.random()
        if phrasing.target.startswith(OUT_OF_SCOPE):
            text = None if draw < 0.25 else self._pick(self.texts)
            return Request(
                phrasing, text, phrasing.target, "description_only" if text is None else "other_surface"
            )
        if draw < 0.2:
            return Request(phrasing, None, phrasing.target, "description_only")
        if draw < 0.45:
            return Request(phrasing, self._pick(self.texts), phrasing.target, "other_surface")
        same = self.by_task_language.get((phrasing.target, phrasing.language))
        if same and draw < 0.7:
            return Request(phrasing, self._pick(same), phrasing.target, "matching")
        pool = self.by_task.get(phrasing.target)
        text = self._pick(pool) if pool else None
        kind: Kind = "cross_lingual" if text and text.language != phrasing.language else "matching"
        return Request(phrasing, text, phrasing.target, kind if text else "description_only")

    def bare(self) -> Request:
        """A request with a text alone, every task as likely."""
        tasks = list(self.by_task)
        text = self._pick(self.by_task[tasks[self.rng.integers(len(tasks))]])
        return Request(None, text, text.task, "text_only")

    def epoch(self, bare: int) -> list[Request]:
        """Every phrasing once with a fresh text, and `bare` requests without a description."""
        described = [self.described(p) for p in self.phrasings]
        return [r for r in described if r is not None] + [self.bare() for _ in range(bare)]

    def _generic(self, phrasing: Phrasing) -> Request | None:
        targets = {k: v for k, v in GENERIC_TARGETS[phrasing.target].items() if k in self.by_task}
        if not targets:
            return None
        task = list(targets)[self.rng.integers(len(targets))]
        return Request(phrasing, self._pick(self.by_task[task]), targets[task], "generic")

    def _pick(self, pool: Sequence[Text]) -> Text:
        return pool[int(self.rng.integers(len(pool)))]

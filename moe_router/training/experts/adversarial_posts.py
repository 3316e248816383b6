"""Posts that may mislead detectors of hate speech, of two public datasets in their own files.

- GAHD: German; written against a detector, translated from the dataset of Vidgen et al. (2021), or sentences
  of the news (Goldzycher et al. 2024, https://arxiv.org/abs/2403.19559; `gahd.csv` of github.com/jagol/gahd,
  CC-BY-4.0);
- HatemojiBuild: English; written against a detector, and emoji tell what is meant (Kirk et al. 2021,
  https://arxiv.org/abs/2108.05921; folder `HatemojiBuild` of github.com/HannahKirk/Hatemoji, CC-BY-4.0).

Both call hate what attacks people for a protected characteristic, and HateCheck does so, too.
"""

from __future__ import annotations

import csv
from pathlib import Path

from moe_router.errors import RequestError
from moe_router.training.experts.examples import Row

LABELS = {"0": "non-hateful", "1": "hateful"}
MOST_WORDS, MOST_LETTERS = 60, 400
"""Of a post; longer ones, which are few, would cost more than they teach."""


def gahd(path: Path) -> list[Row]:
    """Rows of `gahd.csv`, of all its parts.

    Raises:
        RequestError: it cannot be read, or is no such file.
    """
    return _posts(path, "de", "label")


def hatemoji(folder: Path) -> list[Row]:
    """Rows of the three files in `HatemojiBuild`.

    Raises:
        RequestError: one cannot be read, or is no such file.
    """
    parts = ("train", "validation", "test")
    return [row for part in parts for row in _posts(folder / f"{part}.csv", "en", "label_gold")]


def _posts(path: Path, language: str, label: str) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            read = [(" ".join(line["text"].split()), LABELS[line[label]]) for line in csv.DictReader(file)]
    except (OSError, KeyError, AttributeError, ValueError, csv.Error) as error:
        raise RequestError(f"{path}: {type(error).__name__}: {error}") from error
    if not read:
        raise RequestError(f"{path}: there are no rows")
    return [
        Row(text, language, given)
        for text, given in read
        if text and len(text.split()) <= MOST_WORDS and len(text) <= MOST_LETTERS
    ]

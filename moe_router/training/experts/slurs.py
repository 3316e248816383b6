"""Finds the slurs of a test suite of hate speech: words that fill its sentences where no group is named.

Such a suite is made of sentences with a slot, the rows of one sentence beside each other: names of groups
stand in the slot, or slurs. Names of groups fill most sentences of either label; a slur fills a few hateful
ones. So the words need not be listed here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise, takewhile

from moe_router.training.experts.examples import Row

HATEFUL = "hateful"
UNSPACED = frozenset({"zh"})
"""Languages that are written without spaces: a word is what differs between neighbours."""
ALIKE = 0.25
"""Shared words of all words (Jaccard) from which two neighbours are of one sentence."""
LEAST_ROWS = 5
"""Of a sentence."""
RARE = 0.3
"""Share of a sentence's rows in which a word of its slot stands at most."""
COMMON = 0.3
"""Of the sentences that the sixth commonest word fills, the share from which a word names a group."""
NAMING = 0.2
"""Share of a slot's words that name groups, up to which the slot is one for slurs."""
SIMILAR = 0.66
"""To a group's name (`difflib`): another form of it, or a slip."""
MOST_KIND_ROWS = 15
"""That are not hateful and hold a slur, less one."""
BESIDE_GROUPS = 0.4
"""Share of a word's rows with a group's name in them, from which it is an article or its like."""
LEAST_SENTENCES = 2
"""That a slur fills."""
STEM = 4
"""Letters by which the forms of a word are known; shorter words are none."""
LEAST_SLURS = 8
"""Fewer are chance: such as cases of a group's name."""

_WORD = re.compile(r"[\w']+")


@dataclass(frozen=True, slots=True)
class _Sentence:
    label: str
    fillings: frozenset[str]


def slurs(rows: Sequence[Row]) -> list[str]:
    """Slurs of rows of one language in alphabetical order, in lower case where words are spaced.

    There are none where the rows are not of sentences, beside each other.

    Args:
        rows: in the suite's order.
    """
    language = rows[0].language if rows else ""
    sentences = _sentences(rows, unspaced=language in UNSPACED)
    groups = _groups(sentences)
    named = [
        sentence.fillings
        for sentence in sentences
        if sentence.label == HATEFUL and len(sentence.fillings & groups) <= NAMING * len(sentence.fillings)
    ]
    shortest = 2 if language in UNSPACED else STEM
    # A group's name in disguise: with digits for letters, run together, or in Latin letters.
    foreign = re.compile("[0-9 a-z]" if language in ("ar", *UNSPACED) else "[0-9 ]")
    fitting = {
        word
        for word in frozenset[str]().union(*named)
        if len(word) >= shortest and not foreign.search(word) and not _is_like(word, groups, language)
    }
    if language not in UNSPACED:
        told = [(row.label, _words(row.text)) for row in rows]
        fitting = {word for word in fitting if _is_hateful(word, groups, told)}
    for stem in (None, STEM):  # where nouns are inflected, a sentence of its own for each form is much to ask
        filled = Counter(begin for words in named for begin in {word[:stem] for word in words})
        found = sorted(word for word in fitting if filled[word[:stem]] >= LEAST_SENTENCES)
        if len(found) >= LEAST_SLURS:
            return found
    return []


def _sentences(rows: Sequence[Row], *, unspaced: bool) -> list[_Sentence]:
    runs: list[tuple[str, list[list[str]]]] = []
    for row in rows:
        words = list(row.text) if unspaced else _words(row.text)
        if runs and runs[-1][0] == row.label and _are_alike(words, runs[-1][1][-1]):
            runs[-1][1].append(words)
        else:
            runs.append((row.label, [words]))
    fillings = _differences if unspaced else _rare_words
    return [_Sentence(label, fillings(texts)) for label, texts in runs if len(texts) >= LEAST_ROWS]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _are_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    either = set(one) | set(other)
    return len(set(one) & set(other)) >= ALIKE * max(1, len(either))


def _rare_words(texts: Sequence[Sequence[str]]) -> frozenset[str]:
    counts = Counter(word for text in texts for word in set(text))
    return _plausible([word for word, count in counts.items() if count <= max(1, len(texts) * RARE)])


def _differences(texts: Sequence[Sequence[str]]) -> frozenset[str]:
    found = []
    for pair in pairwise(texts):
        one, other = map("".join, pair)
        start = _shared(one, other)
        end = _shared(one[start:][::-1], other[start:][::-1])
        found += [text[start : len(text) - end] for text in (one, other)]
    return _plausible(found)


def _shared(one: str, other: str) -> int:
    """Letters that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _plausible(words: Sequence[str]) -> frozenset[str]:
    return frozenset(word for word in words if 2 <= len(word) <= 24)


def _groups(sentences: Sequence[_Sentence]) -> set[str]:
    """Names of groups: what fills many of the sentences."""
    filled = Counter(word for sentence in sentences for word in sentence.fillings)
    return {word for _, most in filled.most_common(6)[5:] for word in filled if filled[word] >= COMMON * most}


def _is_like(word: str, groups: set[str], language: str) -> bool:
    """Whether a word is another form of a group's name, or its misspelling."""
    return any(
        SequenceMatcher(None, word, group).ratio() > SIMILAR
        or (
            language not in UNSPACED
            and len(group) >= STEM
            and word.startswith(group[: min(STEM, len(group) - 1)])
        )
        for group in groups
    )


def _is_hateful(word: str, groups: set[str], rows: Sequence[tuple[str, list[str]]]) -> bool:
    """Whether it is rare in what is not hateful, and seldom beside a group's name, as an article is."""
    own = [(label, words) for label, words in rows if word in words]
    kind = sum(label != HATEFUL for label, _ in own)
    beside = sum(any(w in groups and len(w) >= STEM for w in words if w != word) for _, words in own)
    return kind < MOST_KIND_ROWS and beside < BESIDE_GROUPS * len(own)

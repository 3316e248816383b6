"""Chooses one-token words that stand for labels of many tokens, so that any label set is read in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from moe_router.experts.scoring import LabelTrie

EncodeWord = Callable[[str], tuple[int, ...]]


def choose_words(labels: Sequence[str], encode: EncodeWord, prefix: str, end: int) -> tuple[str, ...] | None:
    """A word for each label, of one token each and all different; None where labels need none.

    A label gets one of its own words where that can be had for all at once (a maximum bipartite matching,
    by augmenting paths), so that the base model's knowledge of the word helps; the others get numbers.

    Args:
        labels: the label set.
        encode: tokens of a stretch of text.
        prefix: what stands between the prompt and the label.
        end: the token of a line break.
    """
    trie = LabelTrie([encode(prefix + label) for label in labels], end)
    if not trie.context:
        return None
    wanted = [[word for word in _words_of(label) if len(encode(prefix + word)) == 1] for label in labels]
    owner: dict[str, int] = {}
    for label in range(len(labels)):
        _assign(label, wanted, owner, set())
    word_of = {label: word for word, label in owner.items()}
    taken = {encode(prefix + word) for word in owner}
    spare = iter(_spare(encode, prefix, taken, len(labels)))
    words = [word_of[label] if label in word_of else next(spare, "") for label in range(len(labels))]
    # Without enough words of one token, the labels stand for themselves.
    return tuple(words) if all(words) else None


def _words_of(label: str) -> list[str]:
    # Later words come first: what sets labels of one family apart tends to stand at their end.
    return list(dict.fromkeys(reversed(re.findall(r"[^\W\d_]{2,}", label.lower()))))


def _assign(label: int, wanted: Sequence[Sequence[str]], owner: dict[str, int], tried: set[str]) -> bool:
    for word in wanted[label]:
        if word not in tried:
            tried.add(word)
            if word not in owner or _assign(owner[word], wanted, owner, tried):
                owner[word] = label
                return True
    return False


def _spare(encode: EncodeWord, prefix: str, taken: set[tuple[int, ...]], count: int) -> list[str]:
    found: list[str] = []
    letters = "abcdefghijklmnopqrstuvwxyz"
    for word in [a + b for a in letters for b in letters]:
        if len(found) < count and len(tokens := encode(prefix + word)) == 1 and tokens not in taken:
            taken.add(tokens)
            found.append(word)
    return found

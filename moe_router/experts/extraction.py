"""Entities with exact places, by decoding that can only name spans of the text.

The expert writes one line per entity, `- VALUE = TYPE`, in the order of the text, and then `- END`. At each
token only those are allowed that keep this true: a value must be a run of whole words of the text that
begins after the last entity's end, with a word that may open one and one that may close it, and a type
one of the task's. So the output always parses, values are verbatim, entities do not overlap, and
decoding ends after a bounded number of choices.

Why an automaton of our own and not xgrammar or lm-format-enforcer: both compile a grammar, and a
grammar of "a run of words of *this* text" would have to be compiled anew for each text. Here the text's
words are the automaton, a nondeterministic one: all runs that begin with the tokens written so far are
followed at once, so that "Ann Lee" can be told from the "AnnLee@example.org" below it. Where they leave
one way on, the tokens are taken without asking the model, so that an entity costs as many passes as it
has choices, not tokens. And it knows *which* occurrence of a value was chosen, the first of equal ones,
hence the offsets.

How sure a claim is, is the product of the probabilities of its line's choices, each normalised over what
speaks against it: what might have begun before it does not, since most often both are right. That nothing
else should have begun instead is what the list as a whole needs besides. Where a model server tells of none
of the choices the list ends before the line that is open, and is as unsure as a choice that nothing is told
of.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from moe_router.contracts import Entity
from moe_router.experts import formats
from moe_router.experts.engines.base import Decision, Decoder, NotANumberError
from moe_router.experts.scoring import Floats, log_sum_exp
from moe_router.experts.spans import Spans
from moe_router.experts.text_words import OVERLAP_WORDS, Window, Word

MAX_ENTITY_WORDS = OVERLAP_WORDS
MAX_ENTITY_CHARS = 512
"""Bounds on an entity, so that some window sees it whole; a window has at most as many as it has words."""

UNTOLD = 1e-9
"""The probability of a list's end that the model did not choose."""

EncodeWord = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tokens of the lines' fixed parts, and of the types."""

    dash: tuple[int, ...]
    equals: tuple[int, ...]
    line_end: tuple[int, ...]
    stop: tuple[int, ...]
    types: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, types: Sequence[str], encode: EncodeWord) -> Grammar:
        """The grammar in a tokenizer's tokens."""
        return cls(
            encode("-"),
            encode(" ="),
            encode("\n"),
            encode(" END"),
            tuple((t, encode(f" {t}")) for t in types),
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """An entity that a decoder named.

    Attributes:
        start: in code points of the whole text, as `end`.
        span: log-probability that it is this stretch, if one of those that begin here or later.
        kind: log-probability of its type.
    """

    type: str
    start: int
    end: int
    span: float
    kind: float


@dataclass(slots=True)
class Found:
    """What a decoder found in its window.

    Attributes:
        claims: in the order of the text.
        no_other: log-probability that nothing before, between and after them is one, too.
    """

    claims: list[Claim] = field(default_factory=list)
    no_other: float = 0.0


def decoder(text: str, window: Window, grammar: Grammar, encode: EncodeWord, found: Found) -> Decoder:
    """A constrained decoder for one window; what it finds is put into `found`, in place of what was there."""
    walk = _Walk()
    found.claims.clear()  # a batch that failed is run again
    found.no_other = 0.0
    try:
        yield from _lines(text, window, grammar, encode, walk, found.claims)
    except _UntoldError:
        walk.no_earlier += math.log(UNTOLD)
    found.no_other = walk.no_earlier


def _lines(
    text: str, window: Window, grammar: Grammar, encode: EncodeWord, walk: _Walk, claims: list[Claim]
) -> Decoder:
    runs = _Runs(text, window.words, grammar, encode)
    types = [
        _Way((0, kind), (*tokens, *grammar.line_end), True) for kind, (_, tokens) in enumerate(grammar.types)
    ]
    place = 0
    while True:
        walk.feed += grammar.dash
        (first, last), span = yield from walk.along(runs.from_word(place), runs.on)
        if first == _STOP:
            return
        (_, kind), of_kind = yield from walk.along(types)
        start, end = window.words[first].start, window.words[last].end
        place = last + 1
        if window.tells(start, end):
            claims.append(Claim(grammar.types[kind][0], start, end, span, of_kind))


def answer(
    text: str, window: Window, entities: Iterable[Entity], grammar: Grammar, encode: EncodeWord
) -> tuple[int, ...]:
    """The tokens by which a decoder would name these entities of its window; others are passed over."""
    types = dict(grammar.types)
    tokens: tuple[int, ...] = ()
    place = 0
    for entity in sorted(entities, key=lambda e: e.start):
        inside = [
            k
            for k in range(place, len(window.words))
            if window.words[k].start < entity.end and entity.start < window.words[k].end
        ]
        if not inside or entity.start < window.start or entity.end > window.end:
            continue
        if any(window.words[k].too_long for k in inside):
            continue
        place = inside[-1] + 1
        for k in inside:
            tokens += grammar.dash if k == inside[0] else ()
            tokens += _tokens(text, window.words[k], encode, first=k == inside[0])
        tokens += (*grammar.equals, *types[entity.type], *grammar.line_end)
    return (*tokens, *grammar.dash, *grammar.stop, *grammar.line_end)


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the token sequences that may be written from here on.

    Attributes:
        key: of a run of words the first and the last, of a type 0 and its number.
        tokens: those of the last word, or those that close the run.
        ends: whether it is done with them; another goes on from its last word.
        written: how many of the tokens are.
    """

    key: tuple[int, int]
    tokens: tuple[int, ...]
    ends: bool
    written: int = 0

    @property
    def is_written(self) -> bool:
        return self.written == len(self.tokens)

    @property
    def next(self) -> int:
        """The token that it goes on with; it must not be written."""
        return self.tokens[self.written]


_STOP = sys.maxsize
"""The first word of the way that ends the list: it stands behind all others."""


class _Runs:
    """The runs of words that a value may be."""

    def __init__(self, text: str, words: Sequence[Word], grammar: Grammar, encode: EncodeWord) -> None:
        self._text = text
        self._words = words
        self._grammar = grammar
        self._encode = encode
        self._sizes = [0.0, *accumulate(word.size for word in words)]
        self._inner: dict[int, tuple[int, ...]] = {}
        self._openings = [
            _Way((k, k), _tokens(text, word, encode, first=True), False)
            for k, word in enumerate(words)
            if word.opens and self._closes_from(k, k)
        ]

    def from_word(self, place: int) -> list[_Way]:
        """Those that begin with this word or a later one; or that the list ends."""
        stop = _Way((_STOP, _STOP), (*self._grammar.stop, *self._grammar.line_end), True)
        return [*(way for way in self._openings if way.key[0] >= place), stop]

    def on(self, way: _Way) -> list[_Way]:
        """From a run whose last word is written: it closes, or takes in one more word."""
        first, last = way.key
        ways = []
        if self._closes(first, last):
            ways.append(_Way(way.key, self._grammar.equals, True))
        if self._closes_from(first, last + 1):
            ways.append(_Way((first, last + 1), self._tokens_within(last + 1), False))
        return ways

    def _tokens_within(self, k: int) -> tuple[int, ...]:
        if k not in self._inner:
            self._inner[k] = _tokens(self._text, self._words[k], self._encode, first=False)
        return self._inner[k]

    def _closes_from(self, first: int, last: int) -> bool:
        """Whether the run can be closed once it has this word."""
        for k in range(last, len(self._words)):
            word = self._words[k]
            if self._sizes[k + 1] - self._sizes[first] > MAX_ENTITY_WORDS:
                return False
            if word.too_long or word.end - self._words[first].start > MAX_ENTITY_CHARS:
                return False
            if self._closes(first, k):
                return True
        return False

    def _closes(self, first: int, last: int) -> bool:
        if not self._words[last].closes:
            return False
        value = self._text[self._words[first].start : self._words[last].end]
        return (value[0] != "(" or ")" in value) and (value[-1] != ")" or "(" in value)


def most_fed(text: str, window: Window, encode: EncodeWord) -> int:
    """Tokens of the longest word that an entity may have: of what one decision feeds, all but the odd.

    Where a run may not be closed after a word, as within brackets, the next is fed with it, up to
    `MAX_ENTITY_CHARS` in all.
    """
    longest = max((w for w in window.words if not w.too_long), key=lambda w: w.end - w.start, default=None)
    return 0 if longest is None else len(encode(text[longest.start : longest.end]))


def _tokens(text: str, word: Word, encode: EncodeWord, *, first: bool) -> tuple[int, ...]:
    spaced = first or (word.start > 0 and text[word.start - 1].isspace())
    return encode((" " if spaced else "") + text[word.start : word.end])


class _UntoldError(Exception):
    """The model has told of none of the choices."""


class _Walk:
    """Asks the model only where ways part, and keeps account of how sure it was.

    Attributes:
        no_earlier: log-probability that nothing should have begun before what was chosen.
    """

    def __init__(self) -> None:
        self.feed: tuple[int, ...] = ()
        self.no_earlier = 0.0

    def along(
        self, ways: Sequence[_Way], on: Callable[[_Way], Sequence[_Way]] = lambda way: ()
    ) -> Generator[Decision, Floats, tuple[tuple[int, int], float]]:
        """Follows the ways until one ends: of several, the first; what closes goes before what goes on.

        Args:
            ways: in the order of the text.
            on: from a way that is written and does not end, those that it may become.

        Returns:
            The key of the way, whose tokens are written; its log-probability, had nothing begun before it.
        """
        sure = 0.0
        while True:
            while any(way.is_written and not way.ends for way in ways):  # a word may have no tokens
                ways = [
                    later
                    for way in ways
                    for later in (on(way) if way.is_written and not way.ends else (way,))
                ]
            for way in ways:
                if way.is_written:
                    return way.key, sure
            begins: dict[int, int] = {}  # by token; of the runs that it may lead to, the first is meant
            for way in ways:
                begins.setdefault(way.next, way.key[0])
            if len(begins) == 1:
                [token] = begins
            else:
                scores = yield from self._ask(tuple(begins))
                token = max(scores, key=lambda one: scores[one])
                against = [scores[one] for one, place in begins.items() if place >= begins[token]]
                no_earlier = 0.0 if len(against) == len(begins) else min(log_sum_exp(against), 0.0)
                self.no_earlier += no_earlier
                sure += min(scores[token] - no_earlier, 0.0)
            self.feed += (token,)
            ways = [_Way(way.key, way.tokens, way.ends, way.written + 1) for way in ways if way.next == token]

    def _ask(self, choices: tuple[int, ...]) -> Generator[Decision, Floats, dict[int, float]]:
        """The log-probability of each choice."""
        feed, self.feed = self.feed, ()
        scores = yield Decision(feed, choices)
        if np.isnan(scores).any():
            raise NotANumberError
        if np.isneginf(scores).all():
            raise _UntoldError
        return dict(zip(choices, scores.tolist(), strict=True))


def merged(ruled: Iterable[Entity], claims: Iterable[Entity]) -> list[Entity]:
    """One list from what rules and overlapping windows found: in order, without overlaps.

    A rule's finding stands before a model's; a model's value that breaks the rule of its type is dropped; of
    two that overlap the surer stays.
    """
    taken = Spans()
    kept = [entity for entity in ruled if taken.take(entity.start, entity.end)]
    for entity in sorted(claims, key=lambda e: (-e.confidence, e.start, e.end)):
        if formats.contradicts(entity.type, entity.value):
            continue
        if taken.take(entity.start, entity.end):
            kept.append(entity)
    return sorted(kept, key=lambda e: e.start)

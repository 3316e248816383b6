"""Entities with exact places, by decoding that can only name spans of the text.

The expert writes one line per entity, `- VALUE = TYPE`, in the order of the text, and then `- END`. At each
token only those are allowed that keep this true: a value must be a run of whole words of the text that
begins after the last entity's end, and a type one of the task's. So the output always parses, values are
verbatim, entities do not overlap, and decoding ends after a bounded number of choices.

Why an automaton of our own and not xgrammar or lm-format-enforcer: both compile a grammar, and a
grammar of "a run of words of *this* text" would have to be compiled anew for each text. Here the text's
words are the automaton; where they leave one way on, the tokens are taken without asking the model, so that
an entity costs as many passes as it has choices, not tokens. And it knows *which* occurrence of a word
was chosen, hence the offsets.

Confidence is the product of the choices' probabilities, each normalised over what was allowed: of an entity,
those of its own line; of the whole list, all of them, of all windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_router.contracts import Entity
from moe_router.experts import formats
from moe_router.experts.engines.base import Decision, Decoder
from moe_router.experts.scoring import Floats

WINDOW_WORDS = 80
"""Words, or characters of scripts without spaces, that one decoder sees at a time."""

OVERLAP_WORDS = 20
"""Words that neighbouring windows share; a longer entity may be cut at a window's edge."""

MAX_WORD_CHARS = 256
"""A longer stretch without a space, such as an encoded file, is no part of an entity."""

MAX_ENTITY_WORDS = 16
MAX_ENTITIES = 32
"""Bounds on what one window may yield."""

_UNSPACED = r"぀-ヿ㐀-鿿豈-﫿฀-๿຀-໿က-႟ក-៿"
"""Kana, Han, Thai, Lao, Burmese and Khmer: each character may begin or end an entity."""
_WORD = re.compile(
    rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+",
)
_EDGES = "()[]{}<>\"'“”„‘’«».,;:!?¿¡…。、，！？；：「」『』（）【】《》؟،؛।"

EncodeWord = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of the text that an entity contains whole or not at all: text[start:end]."""

    start: int
    end: int
    solid: bool
    """Whether an entity may begin or end with it: it is neither mere punctuation nor too long."""

    @property
    def too_long(self) -> bool:
        """Whether no entity may contain it."""
        return self.end - self.start > MAX_WORD_CHARS


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


@dataclass(slots=True)
class Found:
    """What a decoder found in its window; offsets are those of the whole text."""

    entities: list[Entity] = field(default_factory=list)
    log_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the text, text[start:end], and its words, whose offsets are those of the whole text."""

    start: int
    end: int
    words: tuple[Word, ...]
    before: int = 0
    """The end of the last word that an entity of the window before may have."""
    after: float = math.inf
    """The start of the first word that an entity of the window after may have."""

    def tells(self, start: int, end: int) -> bool:
        """Whether the entity text[start:end] is this window's to tell.

        At an edge it may be cut, and its end is forced, hence cheap; a neighbour that sees more tells it.
        """
        solid = [word for word in self.words if word.solid]
        cut_left = start <= solid[0].start and end < self.before
        cut_right = end >= solid[-1].end and start > self.after
        return not (cut_left or cut_right)


def words_of(text: str) -> list[Word]:
    """The words of a text; punctuation around a word is split off, inside it stays."""
    words: list[Word] = []
    for match in _WORD.finditer(text):
        chunk, at = match.group(), match.start()
        left = len(chunk) - len(chunk.lstrip(_EDGES))
        core = chunk.strip(_EDGES)
        words += [Word(at + i, at + i + 1, False) for i in range(left)]
        if core:
            end = at + left + len(core)
            # "Dr." and "Inc." keep their full stop as an edge that may be taken in.
            solid = len(core) <= MAX_WORD_CHARS and any(c.isalnum() for c in core)
            words.append(Word(at + left, end, solid))
            words += [
                Word(end + i, end + i + 1, chunk[left + len(core) + i] == ".")
                for i in range(match.end() - end)
            ]
    return words


def windows_of(text: str, size: int = WINDOW_WORDS, overlap: int = OVERLAP_WORDS) -> list[Window]:
    """Windows that together cover all words, each sharing `overlap` words with the next."""
    words = words_of(text)
    if not words:
        return []
    firsts = range(0, max(len(words) - overlap, 1), size - overlap)
    parts = [tuple(words[first : first + size]) for first in firsts]
    solid = [[word for word in part if word.solid] for part in parts]
    ends = [0, *(own[-1].end if own else 0 for own in solid[:-1])]
    starts = [*(own[0].start if own else math.inf for own in solid[1:]), math.inf]
    return [
        Window(part[0].start, part[-1].end, part, before, after)
        for part, before, after in zip(parts, ends, starts, strict=True)
    ]


def decoder(text: str, window: Window, grammar: Grammar, encode: EncodeWord, found: Found) -> Decoder:
    """A constrained decoder for one window; what it finds is put into `found`, in place of what was there."""
    walk = _Walk()
    found.entities.clear()  # a batch that failed is run again
    found.log_probability = 0.0
    place = 0
    for _ in range(MAX_ENTITIES):
        walk.feed += grammar.dash
        starts = [
            (k, _tokens(text, window.words[k], encode, first=True))
            for k in range(place, len(window.words))
            if window.words[k].solid
        ]
        line_start = walk.log_probability
        first = yield from walk.choose([*starts, (-1, grammar.stop)], end=grammar.equals[0])
        if first < 0:
            break
        last = yield from _value(text, window.words, first, grammar, encode, walk)
        types = list(enumerate(tokens for _, tokens in grammar.types))
        kind = yield from walk.choose(types, end=grammar.line_end[0])
        walk.feed += grammar.line_end
        start, end = window.words[first].start, window.words[last].end
        place = last + 1
        if not window.tells(start, end):
            continue
        confidence = float(np.exp(walk.log_probability - line_start))
        found.entities.append(
            Entity(
                type=grammar.types[kind][0],
                start=start,
                end=end,
                value=text[start:end],
                confidence=min(confidence, 1.0),
            )
        )
    found.log_probability = walk.log_probability


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
    return (*tokens, *grammar.dash, *grammar.stop)


def _value(
    text: str, words: Sequence[Word], first: int, grammar: Grammar, encode: EncodeWord, walk: _Walk
) -> Generator[Decision, Floats, int]:
    """The entity's words after its first one, and the sign that closes it; returns the index of the last."""
    last = first
    while last + 1 < len(words) and last + 1 - first < MAX_ENTITY_WORDS and _solid_after(words, last):
        on = _tokens(text, words[last + 1], encode, first=False)
        if not words[last].solid:  # an entity does not end in punctuation
            walk.feed += on
        elif not (yield from walk.goes_on(on, stop=grammar.equals)):
            return last
        last += 1
    while not words[last].solid:  # the bound was met within punctuation
        last -= 1
    walk.feed += grammar.equals
    return last


def _solid_after(words: Sequence[Word], index: int) -> bool:
    """Whether an entity that has this word may go on to a later one and end there."""
    for word in words[index + 1 :]:
        if word.solid or word.too_long:
            return word.solid
    return False


def most_fed(text: str, window: Window, encode: EncodeWord) -> int:
    """Tokens of the longest word that an entity may have: a decision feeds about so many at most."""
    longest = max((w for w in window.words if not w.too_long), key=lambda w: w.end - w.start, default=None)
    return 0 if longest is None else len(encode(text[longest.start : longest.end]))


def _tokens(text: str, word: Word, encode: EncodeWord, *, first: bool) -> tuple[int, ...]:
    spaced = first or (word.start > 0 and text[word.start - 1].isspace())
    return encode((" " if spaced else "") + text[word.start : word.end])


class _Walk:
    """Asks the model only where there is a choice, and keeps account of how sure it was."""

    def __init__(self) -> None:
        self.feed: tuple[int, ...] = ()
        self.log_probability = 0.0

    def choose(
        self, options: Sequence[tuple[int, tuple[int, ...]]], *, end: int
    ) -> Generator[Decision, Floats, int]:
        """Picks one of several token sequences; of equal ones, the first.

        Args:
            options: keys and their tokens.
            end: stands for what may follow an option where another option begins with it.

        Returns:
            The key of the one picked, whose tokens are fed.
        """
        left = list(options)
        depth = 0
        while len({tokens for _, tokens in left}) > 1:
            complete = [option for option in left if len(option[1]) == depth]
            longer = [option for option in left if len(option[1]) > depth]
            following = dict.fromkeys(tokens[depth] for _, tokens in longer)
            if complete:
                following.setdefault(end)
            allowed = tuple(following)
            token = allowed[0] if len(allowed) == 1 else (yield from self._ask(allowed))
            if complete and token == end:
                left = complete
                break
            self.feed += (token,)
            left = [option for option in longer if option[1][depth] == token]
            depth += 1
        key, tokens = left[0]
        self.feed += tokens[depth:]
        return key

    def goes_on(self, on: tuple[int, ...], *, stop: tuple[int, ...]) -> Generator[Decision, Floats, bool]:
        """Whether the value goes on with these tokens; feeds them, or those that close it."""
        common = next((i for i, (a, b) in enumerate(zip(on, stop, strict=False)) if a != b), None)
        if common is None:  # the text itself holds the closing sign
            self.feed += stop
            return False
        self.feed += stop[:common]
        token = yield from self._ask((stop[common], on[common]))
        chosen = on if token == on[common] else stop
        self.feed += chosen[common:]
        return chosen is on

    def _ask(self, choices: tuple[int, ...]) -> Generator[Decision, Floats, int]:
        feed, self.feed = self.feed, ()
        scores = yield Decision(feed, choices)
        best = int(np.argmax(scores))
        self.log_probability += float(scores[best])
        return choices[best]


def merged(ruled: Sequence[Entity], windows: Sequence[Found]) -> list[Entity]:
    """One list from what rules and overlapping windows found: in order, without overlaps.

    A rule's finding stands before a model's; a model's value that breaks the rule of its type is dropped; of
    two that overlap the surer stays.
    """
    kept = list(ruled)
    claims = [entity for window in windows for entity in window.entities]
    for entity in sorted(claims, key=lambda e: (-e.confidence, e.start, e.end)):
        free = all(entity.end <= other.start or entity.start >= other.end for other in kept)
        if free and not formats.contradicts(entity.type, entity.value):
            kept.append(entity)
    return sorted(kept, key=lambda e: e.start)

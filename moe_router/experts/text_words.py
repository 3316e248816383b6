"""The words of a text, which an entity contains whole or not at all, and the windows that decoders see.

Finer words would let an entity begin and end anywhere, and cost a choice at each place; coarser ones put
names out of reach: "Thomas's", `Heather:"I'm`, "082 490 1693-Office".
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW_WORDS = 96
"""Words, or characters of scripts without spaces, that one decoder sees at a time."""

OVERLAP_WORDS = 24
"""Words that neighbouring windows share, by their `size`: as many as an entity may have."""

LEAST_WINDOW_WORDS = 6
"""A window of no more words is not halved, however many tokens they have."""

MAX_WORD_CHARS = 256
"""A longer word, such as an encoded file, is no part of an entity."""

LEFT_OUT = "…"
"""Stands for a word that is too long."""

# Escaped, since some of these characters are others once an editor has normalised them.
UNSPACED = (
    r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f"
    r"\u1780-\u17ff\uac00-\ud7a3"
)
"""Kana, Han, Thai, Lao, Burmese and Khmer: each character, with its marks, may begin or end an entity.

So may a syllable of Hangul, which has spaces, but puts its particles at the end of a name; and the adapter
that comes with MoLE was trained with them so.
"""


ACCENTS = r"\u0300-\u036f\u0483-\u0487\u1ab0-\u1aff\u1dc0-\u1dff\ufe20-\ufe2f"
"""What a letter with an accent is decomposed into besides the letter (NFD), which is as much of a word.

Not all marks: a vowel sign is part of the spelling, a variation selector of an emoji.
"""


def _is_mark(sign: str) -> bool:
    """Whether it belongs to the letter before it, as a vowel sign or an accent does."""
    return unicodedata.category(sign).startswith("M")


_MARKS = "".join(
    sign
    for code in (*range(0x0E00, 0x0F00), *range(0x1000, 0x10A0), *range(0x1780, 0x1800), 0x3099, 0x309A)
    if _is_mark(sign := chr(code))
)
_UNSPACED_SIGN = re.compile(f"[{UNSPACED}]")
_CHUNK = re.compile(rf"[{UNSPACED}][{_MARKS}]*|[^\s{UNSPACED}]+")

INVISIBLE = r"\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff"
"""Signs without a width, such as those around a telephone number within Arabic or Hebrew."""
SYMBOLS = r"\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2900-\u297f\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
"""Arrows, emoji and their like."""
_APART = re.escape('()[]{}<>"“”„‘«»;|\\…—–。、，！？；：「」『』（）【】《》؟،؛।') + INVISIBLE + SYMBOLS
"""These part words wherever they stand."""
_EDGES = _APART + re.escape("'’.,:!?¿¡~`\u00ad")
_LETTER = rf"(?:[^\W\d_][{ACCENTS}]*)"
_LEFT_EDGE = re.compile(rf"(?:[{_EDGES}]|[*_]++(?={_LETTER}))*")  # **Ann, but not ****-9855
_RIGHT_EDGE = re.compile(rf"[{_EDGES}]")


def _after(letters: int, then: str) -> str:
    """A lookbehind for so many letters, with up to two accents each, before the rest."""
    endings = [""]
    for _ in range(letters):
        endings = [rf"[^\W\d_]{marks}{end}" for end in endings for marks in _UP_TO_TWO]
    return "(?:" + "|".join(f"(?<={end}{then})" for end in endings) + ")"


_APOSTROPHE = "['’]"
_UP_TO_TWO = ("", f"[{ACCENTS}]", f"[{ACCENTS}]{{2}}")
_CUTS = (
    rf"(?=[{_APART}])|(?<=[{_APART}])"
    # Name:Ann, Ann,Bob and 5,Ann, but not 10:30, 1,000 and https://
    r"|(?<=[^\d\s])(?=[,:!?][^/])|(?<=[^\d\s][,:!?])(?=[^/])"
    rf"|(?<=\d)(?=[,:!?]{_LETTER})|(?<=\d[,:!?])(?={_LETTER})"
    rf"|(?<=\d)(?=-{_LETTER}{{2}})|(?<=\d-)(?={_LETTER}{{2}})"  # 1693-Office
    rf"|(?<=[^\d\s])(?=['’]{_LETTER}{{1,3}}(?![\w{ACCENTS}]))"  # Thomas's
    rf"|{_after(1, _APOSTROPHE)}(?={_LETTER}{{4}})"  # d'Albert
)
_CUT = re.compile(
    _CUTS + rf"|{_after(2, '')}(?=/{_LETTER}{{2}})|{_after(2, '/')}(?={_LETTER}{{2}})"  # Lee/Ann
    r"|(?<=[^=])(?==[\w+])|(?<=[^=]=)(?=[\w+])"  # name=Ann
    r"|(?=&\w+=)|(?<=&)(?=\w+=)"  # Ann&age=30, but not AT&T
)
_CUT_LONG = re.compile(_CUTS)
"""Of a long stretch, which may be an encoded file: slashes and equals signs part nothing there."""


@dataclass(frozen=True, slots=True)
class Word:
    """A stretch of the text that an entity contains whole or not at all: text[start:end]."""

    start: int
    end: int
    opens: bool
    """Whether an entity may begin with it."""
    closes: bool
    """Whether an entity may end with it."""
    size: float = 1.0
    """What it counts in an entity: a character of a script without spaces half a word."""

    @property
    def too_long(self) -> bool:
        """Whether no entity may contain it."""
        return self.end - self.start > MAX_WORD_CHARS


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

    def shown(self, text: str) -> str:
        """What the model reads of the text: words that are too long for it are left out."""
        parts, place = [], self.start
        for word in (word for word in self.words if word.too_long):
            parts += [text[place : word.start], LEFT_OUT]
            place = word.end
        return "".join([*parts, text[place : self.end]])

    def halves(self) -> tuple[Window, Window]:
        """Two windows for this one, which share a quarter of its words."""
        middle, shared = len(self.words) // 2, len(self.words) // 8
        left, right = self.words[: middle + shared], self.words[middle - shared :]
        return (
            Window(left[0].start, left[-1].end, left, self.before, _first(right)),
            Window(right[0].start, right[-1].end, right, _last(left), self.after),
        )

    def tells(self, start: int, end: int) -> bool:
        """Whether the entity text[start:end] is this window's to tell.

        At an edge it may be cut, and its end is forced, hence cheap; a neighbour that sees more tells it.
        """
        cut_left = start <= _first(self.words) and end < self.before
        cut_right = end >= _last(self.words) and start > self.after
        return not (cut_left or cut_right)


def words_of(text: str) -> list[Word]:
    """The words of a text and its punctuation marks: together they are the text without its spaces."""
    words: list[Word] = []
    for match in _CHUNK.finditer(text):
        chunk, at = match.group(), match.start()
        left, right = _edges(chunk)
        words += [_mark(text, at + i) for i in range(left)]
        cut = _CUT if right - left <= MAX_WORD_CHARS else _CUT_LONG
        cuts = sorted({left, right, *(m.start() for m in cut.finditer(chunk, left, right))})
        words += [_piece(text, at + start, at + end) for start, end in pairwise(cuts) if start < end]
        words += [_mark(text, at + i) for i in range(right, len(chunk))]
    return words


def _edges(chunk: str) -> tuple[int, int]:
    """Where the marks at its beginning end, and where those at its end begin."""
    edge = _LEFT_EDGE.match(chunk)
    left = edge.end() if edge else 0
    right = _without_marks(chunk, left, len(chunk))
    bare = left + len(chunk[left:right].rstrip("*_"))
    if bare in (left, right):
        return left, right
    inner = _without_marks(chunk, left, bare)
    ends_in_a_word = chunk[inner - 1].isalpha() or _is_mark(chunk[inner - 1])  # Ann.**, but not 4556****
    return left, inner if ends_in_a_word else right


def _without_marks(chunk: str, start: int, end: int) -> int:
    while end > start and _RIGHT_EDGE.match(chunk, end - 1):
        end -= 1
    return end


def _mark(text: str, at: int) -> Word:
    """A punctuation mark; some may belong to an entity, as in Dr. Inc. (07) 123 and Cyprus (Greek)."""
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    opens = text[at] == "(" and (after.isdigit() or after == "+")
    closes = text[at] == ")" or (text[at] == "." and before != "" and (before.isalnum() or _is_mark(before)))
    return Word(at, at + 1, opens, closes, _size(text[at]))


def _piece(text: str, start: int, end: int) -> Word:
    if end - start == 1 and not text[start].isalnum():
        return _mark(text, start)
    sound = end - start <= MAX_WORD_CHARS and any(c.isalnum() for c in text[start:end])
    opens, closes = sound and text[start] not in "'’", sound and text[end - 1] not in "'’"
    return Word(start, end, opens, closes, _size(text[start]))


def _size(sign: str) -> float:
    return 0.5 if _UNSPACED_SIGN.match(sign) else 1.0


def windows_of(text: str, size: int = WINDOW_WORDS, overlap: int = OVERLAP_WORDS) -> list[Window]:
    """Windows that together cover all words, each sharing words of the size `overlap` with the next."""
    words = words_of(text)
    if not words:
        return []
    firsts = [0]
    while (end := firsts[-1] + size) < len(words):
        firsts.append(_back(words, end, overlap, least=end - size + size // 2))
    parts = [tuple(words[first : first + size]) for first in firsts]
    ends = [0, *(_last(part) for part in parts[:-1])]
    starts = [*(_first(part) for part in parts[1:]), math.inf]
    return [
        Window(part[0].start, part[-1].end, part, before, after)
        for part, before, after in zip(parts, ends, starts, strict=True)
    ]


def least_windows(text: str) -> int:
    """So many windows, or more, the text has: each of its stretches without a space is a word, or several."""
    return len(_CHUNK.findall(text)) // WINDOW_WORDS


def _back(words: Sequence[Word], end: int, size: float, least: int) -> int:
    """Where the words before `end` begin that have this size together."""
    first, room = end, size
    while first > least and words[first - 1].size <= room:
        first -= 1
        room -= words[first].size
    return first


def _first(words: tuple[Word, ...]) -> float:
    """Where an entity of these words begins at the earliest."""
    return next((word.start for word in words if word.opens), math.inf)


def _last(words: tuple[Word, ...]) -> int:
    """Where an entity of these words ends at the latest."""
    return next((word.end for word in reversed(words) if word.closes), 0)

"""Text to tokens with a Hugging Face tokenizer, piece by piece."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from moe_router.errors import ModelAssetError
from moe_router.experts.engines.base import Prompt
from moe_router.experts.prompting import INPUT, Piece, Template

_ANCHOR = "|"
_MARKER = re.compile(
    r"<\|[^<>|\s]+\|>|<｜[^<>｜]+｜>|</?(?:think|[a-z]+(?:_[a-z]+)+)>|\[/?[A-Z]+(?:_[A-Z]+)*\]|<</?SYS>>"
)
"""How the markers of roles and turns look that some tokenizers do not declare as control tokens."""
_NEVER = f"\ufdd0{secrets.token_hex(8)}"
"""Begins with a noncharacter of Unicode, and nobody knows the rest: it is in no text."""
_CHARS_PER_TOKEN = 32
"""Common tokenizers have none longer: a longer text is cut here first, so that its tokenising is bounded."""


class HfTokens:
    """Tokenises templates and values with a fast tokenizer.

    Every piece is tokenised by itself, so that a text cannot merge with the template, and a text that
    spells out a control token such as `<start_of_turn>` or `</s>` gets plain letters. So does one that spells
    out an added token which looks like a marker of roles or turns; others, such as runs of white space and
    HTML tags, are what the model reads in any text.

    Args:
        tokenizer: a transformers tokenizer that is backed by `tokenizers`.
        max_text_tokens: a value's limit; what goes beyond is cut off at its end.
        context: the most tokens that the model reads at once, prompt and answer; None knows of no limit.

    Raises:
        ModelAssetError: the tokenizer is of the slow kind.
    """

    def __init__(self, tokenizer: Any, max_text_tokens: int, context: int | None = None) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelAssetError(f"{type(tokenizer).__name__} has no fast form (tokenizer.json)")
        self._trusted = _plain_copy(tokenizer.backend_tokenizer)
        # A second tokenizer rather than a switch on one: it is used from several threads.
        self._untrusted = _without_control(self._trusted)
        self._max_text_tokens = max_text_tokens
        self.context = context
        self._start = self._put_first()
        # SentencePiece's dummy space would otherwise begin every piece, not only the first.
        self._dummy_space = self._raw("a", True) != self._after_anchor("a", True)
        self._head = lru_cache(maxsize=256)(self._encode_head)

    @property
    def line_end(self) -> int:
        """The token of a line break."""
        return self.encode("\n", trusted=True)[-1]

    def encode(self, text: str, *, trusted: bool) -> tuple[int, ...]:
        """Tokens of a stretch within a text."""
        return self._after_anchor(text, trusted) if self._dummy_space else self._raw(text, trusted)

    def prompt(
        self, template: Template, values: Mapping[str, str], adapter: str | None, answer: int = 0
    ) -> Prompt:
        """Fills and tokenises a template; its longest values are cut to what the model reads."""
        head = self._head(template.head)
        pieces = [(piece, *self._piece(piece)) for piece in template.trimmed(values)]
        most = self._max_text_tokens
        if self.context is not None:
            read = len(head) + sum(len(tokens) for piece, tokens, _ in pieces if piece.trusted)
            values_lengths = [len(tokens) for piece, tokens, _ in pieces if not piece.trusted]
            most = _longest_that_fits(values_lengths, self.context - answer - read)
        tail: list[int] = []
        cut: set[str] = set()
        for piece, tokens, lost in pieces:
            tail.extend(tokens if piece.trusted else tokens[:most])
            if lost or (not piece.trusted and len(tokens) > most):
                cut.add(piece.name)
        if not tail:  # nothing to compute on: the last token of the head must be computed anew
            head, tail = head[:-1], list(head[-1:])
        return Prompt(adapter, head, tuple(tail), bool(cut), INPUT in cut)

    def _piece(self, piece: Piece) -> tuple[tuple[int, ...], bool]:
        """Its tokens, and whether it had more."""
        if piece.trusted:
            return self.encode(piece.text, trusted=True), False
        short = piece.text[: self._max_text_tokens * _CHARS_PER_TOKEN]
        tokens = self.encode(short, trusted=False)
        lost = len(short) < len(piece.text) or len(tokens) > self._max_text_tokens
        return tokens[: self._max_text_tokens], lost

    def _encode_head(self, head: str) -> tuple[int, ...]:
        return (*self._start, *self._raw(head, True)) if head else self._start

    def _put_first(self) -> tuple[int, ...]:
        """What the tokenizer begins a text with, such as `<bos>`: some have one and never do."""
        whole, text = tuple(self._trusted.encode(_ANCHOR).ids), self._raw(_ANCHOR, True)
        starts = range(len(whole) - len(text) + 1)
        return next((whole[:at] for at in starts if whole[at : at + len(text)] == text), ())

    def _raw(self, text: str, trusted: bool) -> tuple[int, ...]:
        tokenizer = self._trusted if trusted else self._untrusted
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    def _after_anchor(self, text: str, trusted: bool) -> tuple[int, ...]:
        anchor = self._raw(_ANCHOR, trusted)
        whole = self._raw(_ANCHOR + text, trusted)
        return whole[len(anchor) :] if whole[: len(anchor)] == anchor else self._raw(text, trusted)


def _longest_that_fits(lengths: Sequence[int], room: int) -> int:
    """To what length values must be cut, the longest first, so that all fit into so many tokens."""
    down = range(max(lengths, default=0), 0, -1)
    return next((most for most in down if sum(min(length, most) for length in lengths) <= room), 0)


def _without_control(tokenizer: Any) -> Any:
    """A copy that reads control tokens, and markers that are not declared as such, as plain letters."""
    added = tokenizer.get_added_tokens_decoder()
    control = {i: t.content for i, t in added.items() if t.special or _MARKER.fullmatch(t.content)}
    data = json.loads(tokenizer.to_str())
    if data["model"]["type"] == "Unigram":
        # Its vocabulary has them, too, as the likeliest reading of what spells them out.
        for index in control:
            if index < len(data["model"]["vocab"]):
                data["model"]["vocab"][index][0] = f"{_NEVER}-{index}-"
        for token in data["added_tokens"]:  # renamed, not left out: those behind it would be numbered anew
            if token["id"] in control:
                token["content"] = f"{_NEVER}-{token['id']}-"
    copy = type(tokenizer).from_str(json.dumps(data))
    copy.encode_special_tokens = True
    if data["model"]["type"] != "Unigram":
        copy.add_special_tokens(list(control.values()))
    return copy


def _plain_copy(tokenizer: Any) -> Any:
    """The tokenizer without the padding and the truncation that may be saved with it."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy

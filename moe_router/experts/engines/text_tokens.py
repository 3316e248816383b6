"""Tokens for engines whose own tokenizer is out of reach: one number per character."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moe_router.experts.engines.base import Prompt
from moe_router.experts.prompting import INPUT, Template

CHARS_PER_TOKEN = 4
"""What a limit in tokens comes to in characters; about right for European languages."""


class TextTokens:
    """Code points stand for tokens, so that tries and prompts can be turned back into text.

    Args:
        max_text_tokens: a value's limit; what goes beyond is cut off at its end.
    """

    def __init__(self, max_text_tokens: int) -> None:
        self._max_chars = max_text_tokens * CHARS_PER_TOKEN

    @property
    def line_end(self) -> int:
        """The code point of a line break."""
        return ord("\n")

    @property
    def context(self) -> int | None:
        """Not known: the server's tokens are others."""
        return None

    def encode(self, text: str, *, trusted: bool) -> tuple[int, ...]:
        """The text's code points."""
        return tuple(map(ord, text))

    def prompt(
        self, template: Template, values: Mapping[str, str], adapter: str | None, answer: int = 0
    ) -> Prompt:
        """Fills a template; how much its model may read, the server knows alone."""
        head = tuple(map(ord, template.head))
        pieces = template.trimmed(values)
        tail: list[int] = []
        for piece in pieces:
            tail += map(ord, piece.text if piece.trusted else piece.text[: self._max_chars])
        cut = {piece.name for piece in pieces if not piece.trusted and len(piece.text) > self._max_chars}
        return Prompt(adapter, head, tuple(tail), bool(cut), INPUT in cut)


def text_of(tokens: Iterable[int]) -> str:
    """The text of code points."""
    return "".join(map(chr, tokens))

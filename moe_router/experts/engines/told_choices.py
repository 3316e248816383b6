"""Weighs a decoder's choices between characters by the tokens that a model server tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Tell = Callable[[str], Mapping[str, float]]
"""The likeliest next tokens after what is written, and their probabilities."""

FOLLOWED = 0.05
"""A token that ends before the choice is followed by another request from this probability on."""


def with_spaces(told: Mapping[str, float]) -> Mapping[str, float]:
    """What was told where a space is next, by a server that tells no token's space: each with its space."""
    return told if any(token.startswith(" ") for token in told) else {f" {t}": p for t, p in told.items()}


class ToldChoices:
    """What a server tells of one text that grows by characters.

    A server is asked only where one of its own tokens may end: after a part of a word, or after the space
    that words carry with them, a model has nothing sensible to say. So what it has told is matched against
    whatever was written since, too.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: dict[str, Mapping[str, float]] = {}
        self._from: str | None = None

    def shares(self, written: str, choices: Sequence[str]) -> list[float]:
        """The probability of the tokens that lead to each choice; 0 throughout where none does."""
        anew = written.rstrip(" ")
        shares, self._from = self._along(anew if self._from is None else self._from, written, choices)
        if not any(shares):
            shares, self._from = self._along(anew, written, choices)
        return shares

    def _along(self, asked: str, written: str, choices: Sequence[str]) -> tuple[list[float], str]:
        """The shares by the tokens from here on, and where the likeliest of the last ones begin."""
        if asked not in self._told:
            self._told[asked] = self._tell(asked)
        told, since = self._told[asked], written[len(asked) :]
        if since.startswith(" "):
            told = with_spaces(told)
        shares = [sum(p for token, p in told.items() if token.startswith(since + c)) for c in choices]
        most, begin = sum(shares), asked
        for token, p in told.items():
            if token and p >= FOLLOWED and since.startswith(token):
                later, end = self._along(asked + token, written, choices)
                shares = [share + p * more for share, more in zip(shares, later, strict=True)]
                if p * sum(later) > most:
                    most, begin = p * sum(later), end
        return shares, begin

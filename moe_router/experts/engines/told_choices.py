"""Weighs a decoder's choices between characters by the tokens that a model server tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Tell = Callable[[str], Mapping[str, float]]
"""The likeliest next tokens after what is written, and their probabilities."""


class ToldChoices:
    """What a server tells of one text that grows by characters.

    A server is asked only where a token of its own may end: after a part of a word, or after the space
    that words carry with them, a model has nothing sensible to say. So what it tells is matched against
    whatever has been written since, too.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._asked: str | None = None
        self._told: dict[str, float] = {}

    def shares(self, written: str, choices: Sequence[str]) -> list[float]:
        """The probability of the tokens that lead to each choice; 0 throughout where none does."""
        if self._asked is None:
            self._ask(written.rstrip(" "))
        while True:
            since = written[len(self._asked or "") :]
            shares = [self._share(since + choice) for choice in choices]
            within = {t: p for t, p in self._told.items() if t and t[-1] != " " and since.startswith(t)}
            token = max(within, key=within.__getitem__, default="")
            if token and within[token] > sum(shares):  # it is more likely to have written this token
                self._ask(f"{self._asked}{token}")
            elif any(shares) or not since.strip(" "):
                return shares
            else:
                self._ask(written.rstrip(" "))

    def _share(self, beginning: str) -> float:
        return sum(p for token, p in self._told.items() if token.startswith(beginning))

    def _ask(self, written: str) -> None:
        self._asked, self._told = written, dict(self._tell(written))

"""How long a text may be, and what is no text at all."""

from __future__ import annotations

from dataclasses import dataclass

from moe_router.contracts import ClassifyRequest
from moe_router.errors import RequestError, TextTooLongError


@dataclass(frozen=True, slots=True)
class Limits:
    """In code points."""

    text: int
    description: int

    def check(self, request: ClassifyRequest) -> None:
        """Refuses what is empty or too long, and U+0000, which neither tokenizers nor databases expect.

        Raises:
            RequestError: the text is empty, or a member holds U+0000.
            TextTooLongError: a member passes its limit.
        """
        if not request.text or request.text.isspace():
            raise RequestError("text: there is no text in it.")
        _check("text", request.text, self.text)
        if request.description is not None:
            _check("description", request.description, self.description)
        if request.fields:
            _check("fields", "".join(request.fields.values()), self.text)


def _check(name: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise TextTooLongError(f"{name}: {len(value)} characters; the limit is {limit}.")
    if "\0" in value:
        raise RequestError(f"{name}: holds U+0000, which is no text.")

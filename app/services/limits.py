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
        if not request.text.strip():
            raise RequestError("text: there is no text in it.")
        fields = "".join(request.fields.values()) if request.fields else ""
        for name, value, limit in (
            ("text", request.text, self.text),
            ("description", request.description or "", self.description),
            ("fields", fields, self.text),
        ):
            if len(value) > limit:
                raise TextTooLongError(f"{name}: {len(value)} characters; the limit is {limit}.")
            if "\0" in value:
                raise RequestError(f"{name}: holds U+0000, which is no text.")

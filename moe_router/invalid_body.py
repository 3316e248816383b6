"""A body that does not fit its schema, told member by member; both services answer so."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from moe_router.errors import RequestError

SHOWN_MISTAKES = 5
READ_MISTAKES = 1000
"""pydantic tells all or none; of a body with very many it would take seconds."""
LONGEST_NAME = 100


class InvalidBodyError(RequestError):
    """The body is no JSON, or does not fit the schema; says which members are wrong."""

    def __init__(self, error: ValidationError) -> None:
        self.mistakes: list[dict[str, str]] = []
        if error.error_count() > READ_MISTAKES:
            super().__init__(f"The body has {error.error_count()} mistakes.")
            return
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        self.mistakes = [_mistake(m["loc"], m["msg"]) for m in mistakes[:SHOWN_MISTAKES]]
        super().__init__("; ".join(f"{m['member']}: {m['detail']}" for m in self.mistakes))

    @property
    def extensions(self) -> Mapping[str, object]:
        """Where in the body each mistake is (JSON Pointer), and what it is."""
        return {"errors": self.mistakes}


def _mistake(location: tuple[int | str, ...], message: str) -> dict[str, str]:
    steps = [str(step)[:LONGEST_NAME] for step in location]
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    plain = message.removeprefix("Value error, ")
    return {"member": ".".join(steps) or "body", "pointer": pointer, "detail": plain}
